"""Real jobs through the front door: a real pretrained model, real data, and the demo itself."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.e2e.service import ROOT, Service, cherry, environment, running_service, wait_for
from tests.shared_data import shared_path

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

STORIES = "data/tinystories-prompts-19"
OVER = ("succeeded", "failed", "cancelled")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    model = shared_path("models/stories260k")
    with (
        tempfile.TemporaryDirectory(prefix="cherry-test-") as folder,
        running_service(Path(folder) / "data", "--port", "0") as started,
    ):
        added = cherry("models", "add", "stories260k", str(model), "--data", str(started.folder))
        assert added.returncode == 0, added.stderr
        yield started


def start(
    client: OpenAI, model: str, train: Path, grader: dict[str, Any], valid: Path | None = None, **hyper: Any
) -> str:
    """Create a job over these files; its id."""
    files = [client.files.create(file=path, purpose="fine-tune").id for path in (train, valid) if path]
    block = {"grader": grader, "hyperparameters": hyper}
    job = client.fine_tuning.jobs.create(
        model=model,
        training_file=files[0],
        validation_file=files[1] if valid else None,
        seed=3,
        method={"type": "reinforcement", "reinforcement": block},  # type: ignore[typeddict-item]
    )
    return job.id


def finished(client: OpenAI, job_id: str) -> Any:
    """The job once it is over."""

    def over() -> Any:
        job = client.fine_tuning.jobs.retrieve(job_id)
        return job if job.status in OVER else None

    return wait_for(over, seconds=400, what=job_id)


def metrics(client: OpenAI, job_id: str) -> list[dict[str, Any]]:
    events = client.fine_tuning.jobs.list_events(job_id, limit=1000).data
    return sorted((e.data for e in events if e.type == "metrics"), key=lambda data: data["step"])  # type: ignore


@pytest.mark.long
def test_a_pretrained_model_learns_the_keyword_within_40_steps(service: Service) -> None:
    data = shared_path(STORIES)
    with service.client() as client:
        job_id = start(
            client,
            "stories260k",
            data / "train.jsonl",
            json.loads((data / "grader.json").read_text()),
            n_epochs=13,
            batch_size=8,
            group_size=8,
            max_completion_tokens=64,
        )
        job = finished(client, job_id)
        assert job.status == "succeeded", job.error
        steps = [step for step in metrics(client, job_id) if "train_mean_reward" in step]
        checkpoints = client.fine_tuning.jobs.checkpoints.list(job_id).data
    rewards = [step["train_mean_reward"] for step in steps]
    assert len(steps) <= 40
    assert sum(rewards[:2]) / 2 < 0.3
    assert sum(rewards[-3:]) / 3 >= 0.9
    assert all(checkpoint.metrics.kl > 0 for checkpoint in checkpoints if checkpoint.step_number)  # type: ignore


@pytest.mark.long
def test_a_constant_grader_moves_nothing(service: Service) -> None:
    train = shared_path(STORIES) / "train.jsonl"
    always = {"type": "string_check", "name": "always", "operation": "ne", "input": "a", "reference": "b"}
    with service.client() as client:
        job_id = start(
            client,
            "stories260k",
            train,
            always,
            valid=train,
            n_epochs=1,
            max_completion_tokens=16,
        )
        job = finished(client, job_id)
        assert job.status == "succeeded", job.error
        assert {step.get("kl", 0.0) for step in metrics(client, job_id)} == {0.0}
        messages = [event.message for event in client.fine_tuning.jobs.list_events(job_id, limit=100)]
        page: Any = client.get(f"/fine_tuning/jobs/{job_id}/checkpoints?limit=100", cast_to=object)
    assert any("equals the base" in message for message in messages)
    sums = checkpoint_sums(service, job_id)
    assert len(page["data"]) >= 2
    assert len({tuple(sorted(files.items())) for files in sums}) == 1, "the weights of some checkpoint differ"


def checkpoint_sums(service: Service, job_id: str) -> list[dict[str, str]]:
    """SHA-256 of each weights file of each checkpoint, read from storage."""
    manifests = (service.folder / "storage" / "jobs" / job_id / "checkpoints").glob("*/manifest.json")
    return [
        {
            name: file["sha256"]
            for name, file in json.loads(path.read_text())["files"].items()
            if "model/" in name
        }
        for path in manifests
    ]


def failing(condition: str) -> dict[str, Any]:
    lines = [
        "def grade(sample, item):",
        f"    if {condition}:",
        "        raise KeyError('no gold')",
        "    return 0",
    ]
    return {"type": "python", "name": "failing", "source": "\n".join(lines)}


@pytest.mark.long
@pytest.mark.parametrize(
    "condition",
    [
        pytest.param("True", id="seen-before-training"),
        pytest.param("len(sample['output_text']) > 3", id="seen-in-training"),
    ],
)
def test_a_grader_that_fails_on_every_answer_fails_a_job_of_two_steps(
    service: Service, tmp_path: Path, condition: str
) -> None:
    rows = (shared_path(STORIES) / "train.jsonl").read_text().splitlines(keepends=True)[:4]
    train = tmp_path / "train.jsonl"
    train.write_text("".join(rows))
    hyper = {"n_epochs": 1, "batch_size": 2, "group_size": 2, "max_completion_tokens": 16}
    with service.client() as client:
        job_id = start(client, "stories260k", train, failing(condition), **hyper)
        job = finished(client, job_id)
        messages = [event.message for event in client.fine_tuning.jobs.list_events(job_id, limit=100)]
    assert (job.status, job.error.code, job.fine_tuned_model) == ("failed", "grader_error", None)
    assert "KeyError: 'no gold'" in job.error.message
    assert not any("New fine-tuned model created" in message for message in messages)


@pytest.mark.long
def test_slots_data_validates_and_its_grader_fits(service: Service) -> None:
    data = shared_path("data/snips-slots-200")
    grader = {
        "type": "fields",
        "name": "slots",
        "input": "{{sample.output_json}}",
        "reference": "{{item.reference_json}}",
    }
    with service.client() as client:
        job_id = start(
            client,
            "cherry-nano",
            data / "train.jsonl",
            grader,
            valid=data / "validation.jsonl",
            n_epochs=1,
            max_completion_tokens=8,
        )

        def validated() -> bool:
            return client.fine_tuning.jobs.retrieve(job_id).status not in ("validating_files",)

        wait_for(validated, what="validation")
        job = client.fine_tuning.jobs.retrieve(job_id)
        assert job.status in ("queued", "running"), job.error
        client.fine_tuning.jobs.cancel(job_id)
        assert finished(client, job_id).status == "cancelled"


def test_the_demo_improves_its_model_while_port_8000_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8000))
            taken.listen()
        except OSError:
            pass  # something else has it, which is as good
        done = subprocess.run(
            [sys.executable, "examples/demo.py", "--data", str(tmp_path / "demo")],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=600,
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    scores = next(line for line in done.stdout.splitlines() if line.startswith("│ mean reward"))
    base, tuned = (float(word) for word in scores.replace("│", " ").split()[2:4])
    assert 0.35 < base < 0.65
    assert tuned >= 0.9
    assert (tmp_path / "demo" / "reward.png").stat().st_size > 10_000
    assert (tmp_path / "demo" / "model" / "model" / "model.safetensors").exists()
