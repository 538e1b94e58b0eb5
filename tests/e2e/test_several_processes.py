"""A training of several processes through the front door: asked for, killed in part, resumed, cancelled."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from openai import OpenAI

from tests.e2e.service import (
    GRADER,
    Service,
    cherry,
    environment,
    hyperparameters,
    running_service,
    wait_for,
    write_rows,
)
from tests.tiny_model import make_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    env = environment(CHERRY_MAX_PROCESSES="2", CHERRY_GPUS="0", CHERRY_MAX_GPUS="8")
    with (
        tempfile.TemporaryDirectory(prefix="cherry-test-") as folder,
        running_service(Path(folder) / "data", "--port", "0", env=env) as started,
    ):
        model = make_tiny_model(Path(folder) / "tiny")
        assert cherry("models", "add", "tiny", str(model), "--data", str(started.folder)).returncode == 0
        yield started


def start_job(client: OpenAI, folder: Path, resources: dict[str, int], **changed: Any) -> str:
    training = client.files.create(file=write_rows(folder / "train.jsonl"), purpose="fine-tune")
    method = {"grader": GRADER, "hyperparameters": hyperparameters(**changed)}
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=training.id,
        method={"type": "reinforcement", "reinforcement": method},  # type: ignore[typeddict-item]
        extra_body={"resources": resources},
    )
    assert job.model_extra
    assert job.model_extra["resources"] == resources
    return job.id


def messages(client: OpenAI, job_id: str) -> list[str]:
    return [event.message for event in client.fine_tuning.jobs.list_events(job_id, limit=100).data]


def ranks(service: Service, job_id: str) -> list[psutil.Process]:
    """The processes that train, not the one that started them."""
    found = []
    for child in psutil.Process(service.process.pid).children(recursive=True):
        try:
            command = child.cmdline()
            if job_id in command and "workers.devices.torchrun" not in command:
                found.append(child)
        except psutil.Error:
            continue
    return found


@pytest.mark.long
def test_a_training_of_two_processes_survives_the_death_of_one(service: Service, tmp_path: Path) -> None:
    with service.client() as client:
        job_id = start_job(client, tmp_path, {"processes": 2}, n_epochs=8, eval_interval=4)
        wait_for(lambda: any(said.startswith("Step 5/") for said in messages(client, job_id)), what="step 5")
        both = ranks(service, job_id)
        assert len(both) == 2
        victim = next(one for one in both if one.environ()["RANK"] == "1")
        os.kill(victim.pid, signal.SIGKILL)
        wait_for(lambda: not any(one.is_running() for one in both), seconds=40, what="the end of the others")
        over = ("succeeded", "failed", "cancelled")
        wait_for(lambda: client.fine_tuning.jobs.retrieve(job_id).status in over, what="the end")
        done = client.fine_tuning.jobs.retrieve(job_id)
        told = messages(client, job_id)
        assert done.status == "succeeded", (done.error, told)
        assert done.fine_tuned_model in {known.id for known in client.models.list()}
        assert [said for said in told if "ended early: another of its processes was lost" in said]
        assert [said for said in told if said.startswith("Resumed after step")]
        assert len([said for said in told if re.match(r"Step \d+/16 ", said)]) == 17
    assert ranks(service, job_id) == []


@pytest.mark.long
def test_a_cancelled_training_of_two_processes_leaves_none(service: Service, tmp_path: Path) -> None:
    with service.client() as client:
        job_id = start_job(client, tmp_path, {"processes": 2}, n_epochs=50)
        wait_for(lambda: any(said.startswith("Step 2/") for said in messages(client, job_id)), what="step 2")
        both = ranks(service, job_id)
        assert len(both) == 2
        client.fine_tuning.jobs.cancel(job_id)
        wait_for(lambda: client.fine_tuning.jobs.retrieve(job_id).status == "cancelled", what="the cancel")
        wait_for(lambda: not any(one.is_running() for one in both), seconds=5, what="the end of both")


@pytest.mark.long
def test_a_job_for_gpus_waits_where_there_are_none_and_says_so(service: Service, tmp_path: Path) -> None:
    with service.client() as client:
        job_id = start_job(client, tmp_path, {"gpus": 1})
        waits = "The job waits for a worker with 1 GPUs; the one that looked has 0"
        wait_for(lambda: waits in messages(client, job_id), what="the word of waiting")
        assert client.fine_tuning.jobs.retrieve(job_id).status == "queued"
        client.fine_tuning.jobs.cancel(job_id)
        assert messages(client, job_id).count(waits) == 1
