"""Jobs written for OpenAI and Azure, printed and started here; aliases of their models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app.cli.imports.openai_job import import_job
from app.cli.main import cli
from app.cli.output import CliError
from app.cli.problems import explain
from app.models import service as models
from tests.factories import GRADER, ROWS, Tenant, make_file
from tests.shared_data import shared_path

runner = CliRunner()
MODEL = "o4-mini-2025-04-16"

TOOL = {"name": "search", "server_url": "https://tools.example.com", "headers": {"X": "y"}}


def published(**changed: Any) -> dict[str, Any]:
    block = {"grader": GRADER, "hyperparameters": {"n_epochs": 2, "eval_interval": None}}
    method = {"type": "reinforcement", "reinforcement": block}
    return {
        "model": MODEL,
        "training_file": "file-1",
        "validation_file": "file-2",
        "method": method,
    } | changed


def call(*arguments: str) -> Any:
    return runner.invoke(cli, [*arguments])


def test_a_create_body_is_sent_as_it_was_published() -> None:
    given = published(suffix="triage", seed=7, metadata={"team": "a"})
    found = import_job(given)
    assert (found.body, found.notes) == (given, [])


def test_an_answered_job_becomes_the_request_for_it() -> None:
    answered = published(
        object="fine_tuning.job",
        id="ftjob-1",
        status="succeeded",
        error={},
        hyperparameters={},
        user_provided_suffix="triage",
        suffix=None,
        fine_tuned_model="ft:x",
        result_files=["file-3"],
        trainingType="globalStandard",
    )
    found = import_job(answered)
    assert found.body == published(suffix="triage")
    assert found.notes == ["left out 'trainingType': where Azure trains"]


def test_only_the_block_of_the_method_is_kept() -> None:
    method = published()["method"] | {"supervised": {"hyperparameters": {}}, "dpo": None}
    method["reinforcement"] = method["reinforcement"] | {"tools": [], "response_format": None}
    found = import_job(published(method=method))
    assert found.body == published()
    assert found.notes == ["left out 'method.supervised': the method is 'reinforcement'"]


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        pytest.param({"model": None}, "model", id="no model"),
        pytest.param(
            {
                "method": {
                    "type": "reinforcement",
                    "reinforcement": {"grader": GRADER, "tools": [{**TOOL, "headers": {"X": "********"}}]},
                }
            },
            "masked",
            id="masked headers",
        ),
    ],
)
def test_what_cannot_be_done_here_is_refused(changed: dict[str, Any], word: str) -> None:
    with pytest.raises(CliError, match=word):
        import_job(published(**changed))


def test_azures_tools_are_kept_and_named() -> None:
    block = {"grader": GRADER, "tools": [TOOL], "max_episode_steps": 10}
    found = import_job(published(method={"type": "reinforcement", "reinforcement": block}))
    assert found.body["method"]["reinforcement"] == block
    assert found.notes[-2:] == [
        "kept 'method.reinforcement.tools[0]': 'search' is called at https://tools.example.com",
        "kept 'method.reinforcement.max_episode_steps': at most 10 turns",
    ]


@pytest.mark.parametrize("text", ["{", "[]", "1"])
def test_what_is_no_job_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.json").write_text(text)
    assert isinstance(call("import", "openai-job", str(tmp_path / "job.json")).exception, CliError)


def test_a_published_job_is_printed_then_started_with_its_files_uploaded(
    tmp_path: Path, server_url: str, db: Session, tenant: Tenant
) -> None:
    models.add_alias(db, MODEL, "cherry-nano")
    valid = make_file(db, tenant.project_id).id
    db.commit()
    job, train = tmp_path / "job.json", tmp_path / "train.jsonl"
    job.write_text(json.dumps(published(trainingType="standard")), "utf-8-sig")
    train.write_bytes(ROWS)
    files = ["--training-file", str(train), "--validation-file", valid]
    shown = call("import", "openai-job", str(job), *files)
    assert json.loads(shown.stdout) == published(training_file=str(train), validation_file=valid)
    assert "trainingType" in shown.stderr
    place = ["--url", server_url, "--key", tenant.key, "--json"]
    made = json.loads(call("import", "openai-job", str(job), *files, "--create", *place).stdout)
    assert (made["model"], made["status"], made["validation_file"]) == (
        "cherry-nano",
        "validating_files",
        valid,
    )
    with openai.OpenAI(base_url=f"{server_url}/v1", api_key=tenant.key) as client:
        assert client.files.content(made["training_file"]).content == ROWS


def test_a_published_configuration_of_azure_runs_unchanged(
    client: openai.OpenAI, db: Session, tenant: Tenant
) -> None:
    folder = shared_path("data/countdown-azure-100")
    grader = json.loads((folder / "grader.json").read_text())
    block = {"grader": grader, "response_format": json.loads((folder / "response_format.json").read_text())}
    models.add_alias(db, MODEL, "cherry-nano")
    file = make_file(db, tenant.project_id, (folder / "train.jsonl").read_bytes()).id
    db.commit()
    method = {"type": "reinforcement", "reinforcement": block}
    body = import_job(published(method=method, training_file=file, validation_file=file)).body
    assert client.fine_tuning.jobs.create(**body).model == "cherry-nano"


def test_aliases_are_added_moved_listed_and_removed(db: Session, tenant: Tenant) -> None:
    assert call("models", "alias", "add", MODEL, "cherry-nano").exit_code == 0
    assert json.loads(call("models", "alias", "list", "--json").stdout) == [
        {"name": MODEL, "model": "cherry-nano"}
    ]
    assert call("models", "alias", "remove", MODEL).exit_code == 0
    for wrong in (
        ["remove", MODEL],
        ["add", "a b", "cherry-nano"],
        ["add", MODEL, "none"],
        ["add", "cherry-nano", "x"],
    ):
        problem = call("models", "alias", *wrong).exception
        assert isinstance(problem, models.AliasInvalid)
        assert explain(problem)
