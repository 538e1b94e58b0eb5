"""Devices through the front door: two trainings side by side, one that needs both, and a worker killed."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from openai import OpenAI

from app.devices.claims import Claims
from app.devices.listing import Device
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

pytestmark = [pytest.mark.e2e, pytest.mark.long]

SEATS = [Device("cpu:0", "cpu"), Device("cpu:1", "cpu")]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A service whose machine has two seats, and so two trainings side by side."""
    with tempfile.TemporaryDirectory(prefix="cherry-test-") as folder:
        env = environment(CHERRY_MAX_PROCESSES="2", CHERRY_GPUS="0", CHERRY_DEVICE_FOLDER=f"{folder}/devices")
        options = ("--port", "0", "--devices", "cpu:0,cpu:1")
        with running_service(Path(folder) / "data", *options, env=env) as started:
            yield started


def start_job(client: OpenAI, folder: Path, resources: dict[str, int] | None, **changed: Any) -> str:
    training = client.files.create(file=write_rows(folder / "train.jsonl"), purpose="fine-tune")
    method: Any = {"grader": GRADER, "hyperparameters": hyperparameters(**changed)}
    job = client.fine_tuning.jobs.create(
        model="cherry-nano",
        training_file=training.id,
        method={"type": "reinforcement", "reinforcement": method},
        extra_body={"resources": resources} if resources else {},
    )
    return job.id


def test_a_killed_workers_device_is_free_and_a_job_that_needs_both_gets_both(
    service: Service, tmp_path: Path
) -> None:
    claims = Claims(service.folder.parent / "devices")
    held = lambda: [holder.what if (holder := claims.holder(seat)) else "" for seat in SEATS]  # noqa: E731
    assert [name for name in service.state()["processes"] if "train" in name] == [
        "worker-train",
        "worker-train-2",
    ]
    with service.client() as client:
        status = lambda job_id: client.fine_tuning.jobs.retrieve(job_id).status  # noqa: E731
        messages = lambda job_id: [  # noqa: E731
            event.message for event in client.fine_tuning.jobs.list_events(job_id, limit=100).data
        ]
        endless = [start_job(client, tmp_path, None, n_epochs=50, early_stop=False) for _ in range(2)]
        wait_for(
            lambda: sorted(held()) == sorted(f"job {job_id}" for job_id in endless), what="both to train"
        )
        large = start_job(client, tmp_path, {"processes": 2})
        waits = "waits for 2 CPU seats there: 0 of 2 are free"
        wait_for(lambda: any(waits in said for said in messages(large)), what="the word of waiting")
        small = start_job(client, tmp_path, None)
        wait_for(lambda: status(small) == "queued", what="a small one behind it")

        killed = claims.holder(SEATS[0])
        assert killed
        victim = killed.what.removeprefix("job ")
        family = psutil.Process(killed.pid).children(recursive=True)
        client.fine_tuning.jobs.cancel(next(job_id for job_id in endless if job_id != victim))
        os.kill(killed.pid, signal.SIGKILL)
        wait_for(lambda: not any(one.is_running() for one in family), what="the end of the family")
        wait_for(lambda: held() == [f"job {large}"] * 2, what="the job that needs both")
        assert status(small) == "queued"
        wait_for(lambda: status(large) == "succeeded", what="its end")
        wait_for(lambda: status(small) == "succeeded" or f"job {small}" in held(), what="the job behind it")
        client.fine_tuning.jobs.cancel(victim)
        wait_for(lambda: status(small) == "succeeded", what="the last")
        wait_for(lambda: held() == ["", ""], what="free devices")


def test_doctor_tells_who_has_which_device(service: Service, tmp_path: Path) -> None:
    with service.client() as client:
        job_id = start_job(client, tmp_path, None, n_epochs=50, early_stop=False)
        env = environment()  # the service's own say where it looks

        def told() -> str:
            return cherry("doctor", "--data", str(service.folder), env=env).stdout

        wait_for(lambda: f"taken by job {job_id}" in told(), what="the doctor's word")
        client.fine_tuning.jobs.cancel(job_id)
