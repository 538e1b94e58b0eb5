"""Who gets the devices of a machine, and what those are told who have to wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.devices.claims import Claim
from app.events.models import JobEvent
from app.jobs import capacity, runs
from app.jobs.models import Job
from app.settings import get_settings
from methods.train_config import TrainConfig
from methods.tune_config import TuneConfig
from tests.workers.rows import make_job
from workers.devices.turns import next_with_devices, take_one, tell_next
from workers.jobs.attempt import devices_environment


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: object) -> Iterator[None]:
    monkeypatch.setenv("PATH", str(tmp_path))  # nobody has a driver to ask
    monkeypatch.setenv("CHERRY_DEVICES", "GPU-a,GPU-b")
    monkeypatch.setenv("CHERRY_DEVICE_FOLDER", str(tmp_path / "devices"))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def begin(expected: Job) -> Claim:
    """The job begins, as with a worker that has claimed it."""
    found = next_with_devices()
    assert found
    assert found[0] == expected.id
    settings = get_settings()
    offered = capacity.of_this_machine(settings)
    with unit_of_work() as db:
        assert runs.claim_for_training(db, "me", settings.lease, offered, expected.id)
    return found[1]


def told(db: Session, job: Job) -> list[str]:
    db.rollback()
    query = select(JobEvent.message).where(
        JobEvent.job_id == job.id, JobEvent.key.startswith("waits-for-dev")
    )
    return list(db.scalars(query))


def test_two_jobs_have_a_gpu_each_and_the_third_waits_and_is_told(db: Session, two_gpus: None) -> None:
    first, second, third = (make_job(db, status="queued") for _ in range(3))
    claims = [begin(first), begin(second)]
    assert [claim.names for claim in claims] == [["GPU-a"], ["GPU-b"]]
    assert next_with_devices() is None
    assert next_with_devices() is None
    (message,) = told(db, third)
    assert "waits for 1 GPU there: 0 of 2 are free" in message
    assert told(db, first) == []
    claims[1].close()
    last = begin(third)
    assert last.names == ["GPU-b"]
    for claim in (claims[0], last):
        claim.close()


def test_a_job_is_told_while_every_worker_trains(db: Session, two_gpus: None) -> None:
    first, second = (make_job(db, status="queued") for _ in range(2))
    claims = [begin(first)]
    tell_next()
    assert told(db, second) == [], "a device is free, and a worker may be about to take it"
    claims.append(begin(second))
    large = make_job(db, status="queued", resources={"gpus": 2})
    tell_next()
    tell_next()
    (message,) = told(db, large)
    assert "waits for 2 GPUs there: 0 of 2 are free" in message
    for claim in claims:
        claim.close()


def test_a_job_for_two_gpus_is_not_overtaken_by_small_ones(db: Session, two_gpus: None) -> None:
    first = make_job(db, status="queued")
    large = make_job(db, status="queued", resources={"gpus": 2})
    small = make_job(db, status="queued")
    on_cpu = make_job(db, status="queued", resources={"processes": 1})
    running = begin(first)
    begin(on_cpu).close()  # it needs no GPU, so that nobody waits longer for it
    assert next_with_devices() is None
    assert "waits for 2 GPUs there: 1 of 2 are free" in told(db, large)[0]
    rest = take_one("another")  # what is free was let go of
    assert rest
    rest.close()
    running.close()
    both = begin(large)
    assert both.names == ["GPU-a", "GPU-b"]
    assert next_with_devices() is None
    both.close()
    begin(small).close()


def test_a_job_that_fits_no_devices_here_holds_nobody_up(db: Session, two_gpus: None) -> None:
    make_job(db, status="queued", resources={"gpus": 3})
    fits = make_job(db, status="queued", resources={"gpus": 2})
    begin(fits).close()


def test_a_training_is_told_its_devices_and_one_on_the_cpu_none(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    sizes = {"n_epochs": 1, "eval_interval": 1, "learning_rate": 1e-3, "seed": 1}
    shared = {"model": "m", "model_path": "m", **sizes}
    run = {"prompts_per_step": 2, "group_size": 2, "max_completion_tokens": 4, **shared}
    held, nothing = take_one("job"), Claim((), (), (), "")
    assert held
    visible = "CUDA_VISIBLE_DEVICES"
    assert devices_environment(TrainConfig(**run), held)[visible] == "GPU-a"  # type: ignore[arg-type]
    assert devices_environment(TrainConfig(**run, device="cpu"), nothing)[visible] == ""  # type: ignore[arg-type]
    assert devices_environment(TrainConfig(**run), nothing) == {}  # type: ignore[arg-type]
    tuned = TuneConfig(**shared, method="supervised", batch_size=2, probe_tokens=1)  # type: ignore[arg-type]
    assert devices_environment(tuned, nothing) == {visible: "5"}
    held.close()
