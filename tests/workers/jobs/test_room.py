"""A training whose disk is full, on a real file system: it waits, and goes on by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.events.models import JobEvent, JobMetrics
from app.jobs import control, room
from app.jobs.models import Job
from app.settings import get_settings
from app.storage import get_storage
from tests.e2e.service import wait_for
from tests.full_disks import fill, small_disk
from tests.workers.rows import data_rows, fresh, make_job
from tests.workers.trainings import reached, while_training
from workers.jobs.attempt import train_next
from workers.jobs.validators import validate_all

pytestmark = pytest.mark.slow

KEPT_FREE = 8 * 2**20


@pytest.fixture
def disk(settings: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small disk for all that the service stores."""
    with small_disk(tmp_path / "disk", 64) as folder:
        monkeypatch.setenv("CHERRY_DATA_DIR", str(folder))
        monkeypatch.setenv("CHERRY_LEAST_FREE_BYTES", str(KEPT_FREE))
        monkeypatch.setenv("CHERRY_TRAINER_THREADS", "1")
        get_settings.cache_clear()
        get_storage.cache_clear()
        yield folder


def told(db: Session, job: Job) -> list[str]:
    db.rollback()
    query = select(JobEvent.message).where(JobEvent.job_id == job.id).order_by(JobEvent.seq)
    return list(db.scalars(query))


@pytest.mark.long
def test_a_training_pauses_when_its_disk_is_full_and_goes_on_by_itself(
    db: Session, disk: Path, tiny_model: Path
) -> None:
    job = make_job(db, validation=data_rows(2), hyperparameters={"n_epochs": 12, "eval_interval": 4})
    assert validate_all("me", threading.Event())
    job_id, ballast = job.id, list[Path]()

    def when_it_runs() -> None:
        wait_for(lambda: reached(job_id, 3), what="step 3")
        ballast.append(fill(disk))

    with while_training(when_it_runs):
        assert train_next("me", threading.Event())
    paused = fresh(db, job)
    assert paused.status == "paused", told(db, job)
    assert paused.waits_for_room is not None
    assert paused.waits_for_room["folder"] == str(disk)
    assert paused.waits_for_room["bytes"] > KEPT_FREE
    assert f"{disk} has no room left; it goes on by itself once" in told(db, job)[-1]
    with unit_of_work() as other:
        assert room.resume_where_room(other) == 0
    ballast[0].unlink()
    with unit_of_work() as other:
        assert room.resume_where_room(other) == 1
    assert told(db, job)[-1] == f"{disk} has room again, moving job to queued state"
    assert train_next("me", threading.Event())
    assert fresh(db, job).status == "succeeded", told(db, job)
    assert list(db.scalars(select(JobMetrics.step).order_by(JobMetrics.step))) == list(range(25))
    assert not list(disk.glob("runs/*"))


def test_an_owner_may_resume_or_keep_a_job_that_waits_for_room(db: Session, settings: object) -> None:
    waiting = {"folder": "/nowhere", "bytes": 1}
    job = make_job(db, status="paused", waits_for_room=waiting)
    control.request_pause(db, job.id)
    db.commit()
    assert fresh(db, job).waits_for_room is None
    assert fresh(db, job).status == "paused"
    other = make_job(db, status="paused", waits_for_room=waiting, pause_requested_at=job.created_at)
    control.request_resume(db, other.id)
    db.commit()
    assert (fresh(db, other).status, fresh(db, other).waits_for_room) == ("queued", None)
