"""`cherry jobs create`, `jobs checkpoints`, `files get`, and what a job's end says."""

from __future__ import annotations

import json
import re
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from app.cli.job_end import before_after
from app.cli.main import cli
from app.cli.output import CliError
from app.jobs.models import Job
from tests.app.events.growing_logs import end
from tests.factories import (
    GRADER,
    ROWS,
    Tenant,
    make_checkpoint,
    make_file,
    make_job,
    make_metrics,
    make_tuned_model,
)

TUNED = "ft:cherry-nano:acme:x:AbCd1234"
VERDICT = {"sentence": "Better on unseen rows: it gains.", "step": 4}


@pytest.fixture
def place(server_url: str, tenant: Tenant) -> list[str]:
    """Options that lead to the service."""
    return ["--url", server_url, "--key", tenant.key]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Options that name a training file and a grader, both here."""
    (tmp_path / "train.jsonl").write_bytes(ROWS)
    (tmp_path / "grader.json").write_text(json.dumps(GRADER))
    return ["--train", str(tmp_path / "train.jsonl"), "--grader", str(tmp_path / "grader.json")]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments])


def create(*arguments: str) -> Result:
    return call("jobs", "create", "--model", "cherry-nano", *arguments)


def test_a_job_is_created_out_of_files_a_grader_and_numbers(
    place: list[str], files: list[str], db: Session, tenant: Tenant
) -> None:
    valid = make_file(db, tenant.project_id).id
    db.commit()
    given = ["--set", "n_epochs=20", "--set", "group_size=8", "--set", "learning_rate_multiplier=auto"]
    given += ["--set", "early_stop=no", "--set", "eval_temperature=0", "--set", "stop=END,STOP"]
    told = ["--suffix", "mine", "--seed", "7", "--name", "first", "--metadata", "team=red", "--valid", valid]
    made = create(*files, *given, *told, *place, "--json")
    assert made.exit_code == 0, made.output
    job = json.loads(made.stdout)
    numbers = job["method"]["reinforcement"]["hyperparameters"]
    wanted = {"n_epochs": 20, "group_size": 8, "learning_rate_multiplier": "auto", "early_stop": False}
    assert numbers.items() >= (wanted | {"eval_temperature": 0.0}).items()
    assert numbers["stop"] == ["END", "STOP"]
    assert (job["validation_file"], job["seed"], job["user_provided_suffix"]) == (valid, 7, "mine")
    assert job["metadata"] == {"team": "red", "name": "first"}
    assert f"train.jsonl as {job['training_file']}" in made.stderr
    got = call("files", "get", job["training_file"], *place)
    assert got.stdout_bytes == ROWS


def test_other_methods_need_no_grader(place: list[str], files: list[str]) -> None:
    made = create(*files[:2], "--method", "dpo", "--set", "beta=0.2", *place, "--json")
    assert json.loads(made.stdout)["method"]["dpo"]["hyperparameters"]["beta"] == 0.2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--set", "epochs=2"], "a reinforcement job has no 'epochs'. Near it are: n_epochs"),
        (["--set", "n_epochs=two"], "'two' is no value of n_epochs, which takes 1 to 10,000 or auto"),
        (["--set", "group_size=nan"], "'nan' is no value of group_size, which takes 2 to 256"),
        (["--set", "beta=inf"], "'inf' is no value of beta, which takes 0 to 2"),
        (["--set", "guard=on"], "'on' is no value of guard, which takes `off`, `warn`, `act`"),
        (["--set", "early_stop=maybe"], "which takes true or false"),
        (["--set", "n_epochs"], "--set takes NAME=VALUE, and 'n_epochs' has no '='"),
        (["--metadata", "x"], "--metadata takes NAME=VALUE, and 'x' has no '='"),
        (["--metadata", "=x"], "--metadata takes NAME=VALUE, and '=x' has no name"),
        (["--set", "seed=1", "--set", "seed=2"], "--set names seed twice"),
        (["--method", "dpo"], "--grader is of reinforcement jobs"),
        (["--valid", "none.jsonl"], "none.jsonl is neither a file here nor the id of one (file-...)"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    files: list[str], given: list[str], told: str
) -> None:
    refused = create(*files, *given, "--url", "http://127.0.0.1:9", "--key", "k")
    assert isinstance(refused.exception, CliError), refused.exception
    assert told in str(refused.exception)


def test_a_reinforcement_job_needs_a_grader(files: list[str]) -> None:
    assert "needs a --grader" in str(create(*files[:2]).exception)


def test_what_the_service_refuses_is_an_error_of_the_client(place: list[str], files: list[str]) -> None:
    refused = create(*files, "--set", "group_size=1", *place)
    assert isinstance(refused.exception, openai.BadRequestError)


def test_what_was_uploaded_for_a_job_that_is_refused_goes_again(
    place: list[str], files: list[str], db: Session, tenant: Tenant
) -> None:
    there = make_file(db, tenant.project_id).id
    db.commit()
    refused = create(*files, "--valid", there, "--model", "nope", *place)
    assert isinstance(refused.exception, openai.BadRequestError)
    assert "Deleted file-" in refused.stderr
    assert [file["id"] for file in json.loads(call("files", "list", "--json", *place).stdout)] == [there]


def finished(db: Session, tenant: Tenant, **columns: Any) -> Job:
    """A job that has delivered the checkpoint of step 4, with a file of results."""
    result = make_file(db, tenant.project_id, b"step,reward\n", name="r.csv", purpose="fine-tune-results").id
    given = {"verdict": VERDICT, "fine_tuned_model": TUNED, "result_files": [result], **columns}
    job = make_job(db, tenant.project_id, status="succeeded", **given)
    make_tuned_model(db, job, TUNED).storage_key = f"jobs/{job.id}/checkpoints/4-1"
    make_checkpoint(db, job, 2, valid_reward=0.5, trust={"p": 0.04})
    make_checkpoint(db, job, 4, valid_reward=0.75, advantage_over_base=0.5)
    make_metrics(db, job, 0, {"reward/valid_mean": 0.25})
    make_metrics(db, job, 4, {"reward/valid_mean": 0.75})
    db.commit()
    return job


def test_the_end_of_a_job_tells_what_was_gained_and_how_to_use_it(
    place: list[str], server_url: str, db: Session, tenant: Tenant
) -> None:
    job = finished(db, tenant)
    shown = call("jobs", "follow", job.id, *place)
    assert shown.exit_code == 0, shown.output
    assert re.search(r"Reward +0.25 before, 0.75 after \(\+0.5\)", shown.output)
    assert VERDICT["sentence"] in shown.output
    assert f'client = OpenAI(base_url="{server_url}/v1"' in shown.output
    assert f'model="{TUNED}"' in shown.output
    assert f"cherry chat {TUNED}" in shown.output
    compile(shown.output.split("Use it:")[1].rpartition("cherry chat")[0], "snippet", "exec")


def test_seeds_have_their_own_before_and_after(server_url: str, db: Session, tenant: Tenant) -> None:
    arms = [{"is_delivered": False, "reward": 0.9, "gain": 0.1}]
    arms += [{"is_delivered": True, "reward": 0.75, "gain": 0.25}]
    job = finished(db, tenant, verdict=VERDICT | {"arms": arms})
    with openai.OpenAI(base_url=f"{server_url}/v1", api_key=tenant.key) as client:
        sent = client.fine_tuning.jobs.retrieve(job.id).to_dict(mode="json", warnings=False)
        assert before_after(client, sent) == (0.5, 0.75)
        assert before_after(client, sent | {"fine_tuned_model": None}) is None


def test_checkpoints_are_listed_newest_first(place: list[str], db: Session, tenant: Tenant) -> None:
    job = finished(db, tenant)
    listed = json.loads(call("jobs", "checkpoints", job.id, "--json", *place).stdout)
    assert [kept["step_number"] for kept in listed] == [4, 2]
    shown = call("jobs", "checkpoints", job.id, *place).output.splitlines()
    assert shown[1].split()[:4] == [TUNED, "4", "0.75", "+0.5"]
    assert shown[2].split()[1:4] == ["2", "0.5", "0.04"]


def test_a_file_is_saved_whole_and_over_nothing(
    place: list[str], db: Session, tenant: Tenant, tmp_path: Path
) -> None:
    (result,) = finished(db, tenant).result_files
    there = tmp_path / "r.csv"
    assert call("files", "get", result, "-o", str(there), *place).exit_code == 0
    assert there.read_bytes() == b"step,reward\n"
    there.write_text("mine")
    refused = call("files", "get", result, "-o", str(there), *place)
    assert "is there already: give another -o, or --force" in str(refused.exception)
    assert call("files", "get", result, "-o", str(there), "--force", *place).exit_code == 0
    assert there.read_bytes() == b"step,reward\n"
    missing = call("files", "get", "file-none", "-o", str(tmp_path / "none"), *place)
    assert isinstance(missing.exception, openai.NotFoundError)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["r.csv"]


def test_a_job_that_is_waited_for_ends_with_its_last_state(
    place: list[str], files: list[str], db: Session
) -> None:
    def end_it() -> None:
        while (job_id := db.scalars(select(Job.id)).first()) is None:
            db.rollback()
        end(job_id)

    ending = threading.Thread(target=end_it)
    ending.start()
    waited = create(*files, "--wait", "--json", *place)
    ending.join()
    assert waited.exit_code == 1, "it did not succeed"
    lines = [json.loads(line) for line in waited.stdout.splitlines()]
    assert (lines[0]["status"], lines[-1]["status"]) == ("validating_files", "cancelled")
    assert {line["object"] for line in lines[1:-1]} == {"fine_tuning.job.event"}


def test_the_version_is_shown() -> None:
    assert call("--version").output == f"cherry {version('cherry-rft')}\n"
