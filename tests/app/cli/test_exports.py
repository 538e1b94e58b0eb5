"""What the exporter has written of a project, listed and started here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from app.cli.imports import export_folder
from app.cli.main import cli
from app.cli.output import CliError
from app.models import service as models
from scripts import export_openai
from tests.factories import ROWS, Tenant, make_tenant
from tests.scripts.openai_server import OpenAI, a_file, a_job, a_project, serving

MODEL = "o4-mini-2025-04-16"
JOBS = "/fine_tuning/jobs"


@pytest.fixture
def project() -> OpenAI:
    """A project with a job that can be run again, one whose validation file is gone, and one with tools."""
    found = a_project()
    method = found.lists[JOBS][0]["method"]
    hidden = {"name": "search", "server_url": "https://example.com", "headers": {"X-Key": "********"}}
    block = {**method["reinforcement"], "tools": [hidden]}
    with_tools = {"type": "reinforcement", "reinforcement": block}
    found.lists[JOBS] += [
        a_job("ftjob-2", validation_file="file-gone", created_at=1_790_000_010),
        a_job("ftjob-3", method=with_tools, created_at=1_790_000_020),
    ]
    found.lists |= {f"{JOBS}/ftjob-{n}/{name}": [] for n in (2, 3) for name in ("events", "checkpoints")}
    found.lists["/files"] = [a_file("file-train", "fine-tune")]
    found.contents = {"file-train": ROWS}
    return found


@pytest.fixture
def export(project: OpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder of its export."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-theirs")
    with serving(project) as url:
        assert export_openai.main([str(tmp_path / "export"), "--base-url", url]) == 0
    return str(tmp_path / "export")


@pytest.fixture
def place(server_url: str, tenant: Tenant, db: Session) -> list[str]:
    """Options that lead to the service, which has a model of OpenAI's name."""
    models.add_alias(db, MODEL, "cherry-nano")
    db.commit()
    return ["--url", server_url, "--key", tenant.key, "--json"]


@pytest.fixture
def loose(server_url: str, tenant: Tenant) -> Iterator[openai.OpenAI]:
    """The official client, as users have it."""
    with openai.OpenAI(base_url=f"{server_url}/v1", api_key=tenant.key) as client:
        yield client


def jobs(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["import", "openai-jobs", *arguments])


def read(result: Result) -> Any:
    return json.loads(result.stdout)


def test_an_export_shows_its_jobs_and_what_each_lacks(export: str) -> None:
    shown = read(jobs(export, "--json"))
    masked = "the headers of method.reinforcement.tools[0] are masked: put in what they were"
    assert [(job["id"], job["lacks"]) for job in shown] == [
        ("ftjob-1", None),
        ("ftjob-2", "no validation_file"),
        ("ftjob-3", masked),
    ]
    assert "ftjob-2" in jobs(export).stdout


def test_a_job_of_an_export_is_printed_with_paths_for_its_files(export: str) -> None:
    body = read(jobs(export, "--job", "ftjob-1"))
    assert Path(body["training_file"]).read_bytes() == ROWS
    assert (body["suffix"], body["metadata"]) == ("sums", {"openai_job": "ftjob-1"})


def test_jobs_of_an_export_are_started_once_with_their_files(
    export: str, place: list[str], loose: openai.OpenAI
) -> None:
    done = jobs(export, "--all", "--create", *place)
    assert done.exit_code == 1
    first, lacking, with_tools = read(done)
    assert (first["problem"], lacking["job"], with_tools["job"]) == (None, None, None)
    assert lacking["problem"] == (
        "the export lacks validation_file file-gone: name another with --validation-file"
    )
    made = loose.fine_tuning.jobs.retrieve(first["job"])
    assert (made.model, made.metadata) == ("cherry-nano", {"openai_job": "ftjob-1"})
    assert loose.files.content(made.training_file).content == ROWS
    assert loose.files.retrieve(made.training_file).filename == "train.jsonl"
    again = ["--job", "ftjob-1", "--job", "ftjob-2", "--validation-file", made.training_file, "--create"]
    kept, new = read(jobs(export, *again, *place))
    assert kept["job"] == first["job"]
    assert loose.fine_tuning.jobs.retrieve(new["job"]).validation_file == made.training_file
    assert len(loose.fine_tuning.jobs.list().data) == 2


def test_a_refused_job_leaves_no_file_behind(export: str, place: list[str], loose: openai.OpenAI) -> None:
    done = jobs(export, "--job", "ftjob-1", "--model", "none", "--create", *place)
    assert "none" in read(done)[0]["problem"]
    assert loose.files.list().data == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(["--create"], "--job ID", id="all jobs at once unasked"),
        pytest.param(["--job", "ftjob-9"], "no job ftjob-9", id="a job that is not there"),
    ],
)
def test_what_is_not_clear_is_asked_back(export: str, options: list[str], words: str) -> None:
    problem = jobs(export, *options).exception
    assert isinstance(problem, CliError)
    assert words in str(problem)


@pytest.mark.parametrize("about", [None, {"format": 2}])
def test_a_folder_that_is_no_export_is_refused(tmp_path: Path, about: dict[str, int] | None) -> None:
    if about:
        (tmp_path / "export.json").write_text(json.dumps(about))
    assert isinstance(jobs(str(tmp_path)).exception, CliError)


def test_a_list_that_is_not_whole_is_read_and_told(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text('{"format": 1}')
    (tmp_path / "jobs.jsonl.part").write_text(json.dumps(a_job("ftjob-1")) + '\n{"id": "ftj')
    shown = jobs(str(tmp_path), "--json")
    assert [job["id"] for job in read(shown)] == ["ftjob-1"]
    assert "jobs.jsonl.part is not whole" in shown.stderr


@pytest.mark.parametrize("name", ["evalrun_1", "../up", "a/b.c", "ft:base:org::id"])
def test_reader_and_exporter_agree_on_names(name: str) -> None:
    assert export_folder.place(name) == export_openai.place(name)


def evals(tenant: Tenant, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["import", "openai-evals", *arguments, "--project", tenant.project_id])


def test_evals_of_an_export_are_here_as_they_were_there(
    export: str, project: OpenAI, loose: openai.OpenAI, tenant: Tenant
) -> None:
    done = evals(tenant, export, "--json")
    assert [(row["eval"], row["runs"], row["items"], row["problems"]) for row in read(done)] == [
        ("eval_1", 1, 2, []),
        ("eval_2", 0, 0, []),
    ]
    there = project.lists
    assert [one.to_dict() for one in loose.evals.list()] == there["/evals"]
    (run,) = (one.to_dict() for one in loose.evals.runs.list("eval_1"))
    (theirs,) = there["/evals/eval_1/runs"]
    ours = ("report_url", "progress", "metadata")
    assert run == {name: value for name, value in theirs.items() if name not in ours} | {
        name: run[name] for name in ours
    }
    found = [one.to_dict() for one in loose.evals.runs.output_items.list("evalrun_1", eval_id="eval_1")]
    for item, exported in zip(found, there["/evals/eval_1/runs/evalrun_1/output_items"], strict=True):
        for result in item["results"]:
            assert result.pop("sample") is None
        assert item == exported
    again = read(evals(tenant, export, "--json"))
    assert [(row["runs"], row["there"]) for row in again] == [(0, 1), (0, 0)]


def odd_item(n: int) -> dict[str, Any]:
    """An item as the service wrote it where a grader could not judge, and contents have parts."""
    sample = {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "a\ud83d"}, {"type": "x"}]}],
        "output": [{"role": "assistant", "content": None}],
        "finish_reason": None,
        "usage": None,
        "error": {"code": None, "message": "rate limit"},
    }
    return {
        "id": f"outputitem_odd{n}",
        "created_at": 1,
        "status": "errored",
        "datasource_item_id": n,
        "datasource_item": {"nul": "\u0000", "big": 1e400},
        "results": [{"name": "same-1f", "score": None, "passed": False}],
        "sample": sample,
    }


def test_odd_items_are_kept_and_can_be_read(
    export: str, project: OpenAI, loose: openai.OpenAI, tenant: Tenant
) -> None:
    items = Path(export) / "evals" / "eval_1" / "items" / "evalrun_1.jsonl"
    items.write_text("".join(json.dumps(odd_item(n)) + "\n" for n in range(3)))
    assert read(evals(tenant, export, "--eval", "eval_1", "--json"))[0]["items"] == 3
    found = loose.evals.runs.output_items.list("evalrun_1", eval_id="eval_1").data[0]
    assert (found.status, found.results[0].type, found.results[0].score) == ("error", "string_check", 0.0)
    assert found.sample.input[0].content == 'a?{"type": "x"}'
    assert found.sample.error.message == "rate limit"


def test_runs_that_were_not_over_or_whole_are_told(export: str, loose: openai.OpenAI, tenant: Tenant) -> None:
    runs = Path(export) / "evals" / "eval_1" / "runs.jsonl"
    run = json.loads(runs.read_text())
    (runs.parent / "items" / "evalrun_1.jsonl").unlink()
    broken = run | {"id": "evalrun_2", "result_counts": {"total": "many"}}
    going = run | {"id": "evalrun_3", "status": "in_progress", "error": None}
    runs.write_text("".join(json.dumps(one) + "\n" for one in (run, broken, going)))
    done = evals(tenant, export, "--eval", "eval_1", "--json")
    assert done.exit_code == 1
    problems = read(done)[0]["problems"]
    assert problems[0] == "evalrun_1: the export has 0 of its 2 items"
    assert problems[1].startswith("evalrun_2: 'total' has another form")
    kept = loose.evals.runs.retrieve("evalrun_3", eval_id="eval_1")
    assert (kept.status, kept.error.code) == ("failed", "not_finished")


def test_an_eval_of_another_project_stays_its_own(export: str, db: Session, tenant: Tenant) -> None:
    assert evals(tenant, export).exit_code == 0
    other = make_tenant(db, "other")
    db.commit()
    done = evals(other, export, "--json")
    assert {row["problems"][0] for row in read(done)} == {"another project has this eval already"}
    assert isinstance(evals(other._replace(project_id="proj_none"), export).exception, CliError)


def test_criteria_that_cannot_run_here_are_told_and_kept(
    export: str, loose: openai.OpenAI, tenant: Tenant
) -> None:
    file = Path(export) / "evals.jsonl"
    exported = json.loads(file.read_text().splitlines()[0])
    exported["testing_criteria"].append({"type": "score_audio", "name": "tone", "id": "tone-1"})
    file.write_text(json.dumps(exported) + "\n")
    problems = read(evals(tenant, export, "--json"))[0]["problems"]
    assert problems[0].startswith("cannot be run here, tone:")
    assert loose.evals.retrieve("eval_1").testing_criteria[1].name == "tone"
