"""A job that names an environment of the operator's, from the request to a tuned model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.calling_model import LETTERS, make_calling_model, row_of
from tests.e2e.service import Service, cherry, environment, hyperparameters, running_service, wait_for
from tests.e2e.test_tool_jobs import rollouts_of

pytestmark = [pytest.mark.e2e, pytest.mark.long]

NUMBERS = str(Path(__file__).with_name("guessing.py"))
ENVIRONMENTS = {
    "numbers": {"load": f"{NUMBERS}:Numbers", "description": "Tells numbers.", "job_args": ["again"]},
    "broken": {"load": "no_such_module:Numbers"},
}
GRADER = {"type": "environment", "name": "own", "range": [0, 1]}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    env = environment(CHERRY_ENVIRONMENTS=json.dumps(ENVIRONMENTS))
    with (
        tempfile.TemporaryDirectory(prefix="cherry-test-") as folder,
        running_service(Path(folder) / "data", "--port", "0", env=env) as started,
    ):
        model = make_calling_model(Path(folder) / "calling")
        data = ("--data", str(started.folder))
        assert cherry("models", "add", "calling", str(model), *data).returncode == 0
        yield started


def trained(service: Service, tmp_path: Path, named: dict[str, Any], **block: Any) -> dict[str, Any]:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row_of(letter)) + "\n" for letter in LETTERS))
    numbers = hyperparameters(
        n_epochs=2, batch_size=5, group_size=6, eval_interval=2, max_completion_tokens=120, lora_rank=8
    )
    method = {"grader": GRADER, "environment": named, "hyperparameters": numbers, **block}
    headers = {"authorization": f"Bearer {service.api_key}"}
    with service.client() as client:
        training = client.files.create(file=rows, purpose="fine-tune")
    body = {"model": "calling", "training_file": training.id}
    body["method"] = {"type": "reinforcement", "reinforcement": method}
    url = f"{service.url}/v1/fine_tuning/jobs"
    job = httpx.post(url, json=body, headers=headers).json()

    def ended() -> Any:
        found = httpx.get(f"{url}/{job['id']}", headers=headers).json()
        return found if found["status"] in ("succeeded", "failed") else None

    found: dict[str, Any] = wait_for(ended, seconds=300)
    return found


def test_a_job_trains_on_what_its_environment_replies_and_gives(service: Service, tmp_path: Path) -> None:
    named = {"type": "named", "name": "numbers", "args": {"again": True}}
    job = trained(service, tmp_path, named, max_episode_steps=6)
    assert job["status"] == "succeeded", job["error"]
    rollouts = rollouts_of(service, job["id"])
    graded = [each for each in rollouts if each["failure"] is None]
    assert graded
    assert all(each["reward"] == each["episode"]["reward"] for each in graded)
    assert {each["reward"] for each in graded} == {0.25, 1.0}
    talks = [[message["role"] for message in each["episode"]["messages"]] for each in rollouts]
    assert ["assistant", "tool", "assistant", "user", "assistant"] in talks
    outputs = [m for each in rollouts for m in each["episode"]["messages"] if m["role"] == "tool"]
    assert all(m["seconds"] >= 0 for m in outputs)
    assert {m["content"] for m in outputs} & set("0123456789")


def test_one_that_cannot_be_loaded_fails_the_job_before_it_trains(service: Service, tmp_path: Path) -> None:
    job = trained(service, tmp_path, {"type": "named", "name": "broken"})
    assert (job["status"], job["error"]["code"]) == ("failed", "environment_error")
    assert job["error"]["param"] == "method.reinforcement.environment"
    assert "No module named 'no_such_module'" in job["error"]["message"]
