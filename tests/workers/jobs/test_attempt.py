"""Trainings as real processes: their end, their death, their hanging, and who settles it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app import process
from app.cards.models import RunCard
from app.checkpoints.models import Checkpoint
from app.db import unit_of_work
from app.events.models import JobEvent, JobMetrics
from app.files.models import File
from app.jobs import capacity, control
from app.jobs.models import Job
from app.models.models import Model
from app.process import is_alive
from app.rollouts.models import Rollout
from app.settings import get_settings
from app.storage import get_storage
from tests.e2e.service import wait_for
from tests.workers.rows import data_rows, fresh, make_job, make_model
from tests.workers.trainings import children, reached, training_pid, while_training
from workers.jobs.attempt import child_settings, train_next
from workers.jobs.validators import validate_all

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, settings: object) -> None:
    monkeypatch.setenv("CHERRY_TRAINER_THREADS", "1")
    monkeypatch.setenv("CHERRY_LEASE", "PT6S")
    get_settings.cache_clear()


def queued(db: Session, **values: object) -> Job:
    """A validated job."""
    job = make_job(db, validation=data_rows(2), **values)  # type: ignore[arg-type]
    assert validate_all("me", threading.Event())
    assert fresh(db, job).status == "queued", job.error
    return job


def events(db: Session, job: Job) -> list[str]:
    db.rollback()
    return list(db.scalars(select(JobEvent.key).where(JobEvent.job_id == job.id).order_by(JobEvent.seq)))


def test_a_killed_training_goes_on_and_its_history_has_no_gap(db: Session, tiny_model: Path) -> None:
    job = queued(db, hyperparameters={"n_epochs": 12, "eval_interval": 4})
    job_id = job.id

    def kill() -> None:
        wait_for(lambda: reached(job_id, 4), what="step 4")
        pid = training_pid()
        assert pid
        os.kill(pid, signal.SIGKILL)

    with while_training(kill):
        train_next("me", threading.Event())
    assert fresh(db, job).status == "queued"
    assert job.fruitless_attempts == 0
    assert job.state_step is not None
    assert train_next("me", threading.Event())
    assert fresh(db, job).status == "succeeded", job.error
    steps = db.scalars(select(JobMetrics.step).order_by(JobMetrics.step)).all()
    assert list(steps) == list(range(25))
    told = events(db, job)
    assert len(told) == len(set(told))
    assert [key for key in told if key.startswith("step-")] == [f"step-{step}" for step in range(25)]
    assert db.scalars(select(Rollout).where(Rollout.split == "train", Rollout.step == 24)).all()
    model = db.scalars(select(Model).where(Model.job_id == job.id)).one()
    assert model.name == job.fine_tuned_model
    kept = select(Checkpoint.step).where(Checkpoint.storage_key.is_not(None)).order_by(Checkpoint.step)
    assert db.scalars(kept).first() == 0
    assert not (get_settings().data_dir / "runs" / job.id).exists()
    assert get_storage().list_keys(f"jobs/{job.id}/state") == []
    noted = db.scalars(select(RunCard).where(RunCard.job_id == job.id)).one()
    assert noted.document, "the worker that ended the job has made its card"
    card = json.loads(noted.document)["card"]
    assert [each["attempt"] for each in card["attempts"]] == [2, 3]
    assert card["delivered"]["files"].keys() >= {"model/model.safetensors"}


@pytest.mark.long
def test_a_tuned_model_and_a_checkpoint_are_tuned_on(db: Session, tiny_model: Path) -> None:
    first = queued(db, hyperparameters={"n_epochs": 1})
    train_next("me", threading.Event())
    assert fresh(db, first).status == "succeeded", first.error
    own = (Checkpoint.job_id == first.id, Checkpoint.storage_key.is_not(None), Checkpoint.step > 0)
    checkpoint = db.scalars(select(Checkpoint.model_name).where(*own)).first()
    for name in (first.fine_tuned_model, checkpoint):
        job = queued(db, model=name, hyperparameters={"n_epochs": 1})
        train_next("me", threading.Event())
        assert fresh(db, job).status == "succeeded", job.error
        assert job.fine_tuned_model
        assert job.fine_tuned_model.startswith("ft:tiny:cherry::")


def test_a_cancelled_training_ends_within_seconds(db: Session, tiny_model: Path) -> None:
    job = queued(db, hyperparameters={"n_epochs": 50, "batch_size": 1})
    job_id = job.id
    pids: list[int] = []

    def cancel() -> None:
        pids.append(wait_for(training_pid, what="the training"))
        wait_for(lambda: reached(job_id, 1), what="step 1")
        with unit_of_work() as other:
            control.request_cancel(other, job_id)

    with while_training(cancel):
        train_next("me", threading.Event())
    assert fresh(db, job).status == "cancelled"
    assert job.fine_tuned_model is None
    assert not is_alive(pids[0])
    assert events(db, job)[-1] == "cancelled"


def test_a_stopping_worker_gives_the_job_back_uncounted(db: Session, tiny_model: Path) -> None:
    job = queued(db, hyperparameters={"n_epochs": 50, "batch_size": 1})
    stopping = threading.Event()

    def stop() -> None:
        wait_for(training_pid, what="the training")
        stopping.set()

    started = time.monotonic()
    with while_training(stop):
        train_next("me", stopping)
    assert time.monotonic() - started < get_settings().shutdown_grace.total_seconds() + 10
    assert fresh(db, job).status == "queued"
    assert job.fruitless_attempts == 0
    assert children() == []


def test_two_processes_told_to_stop_save_their_state_and_are_no_crash(
    db: Session, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHERRY_MAX_PROCESSES", "2")
    get_settings.cache_clear()
    job = queued(db, hyperparameters={"n_epochs": 50, "eval_interval": 1000}, resources={"processes": 2})
    job_id = job.id

    def stop() -> None:
        wait_for(lambda: reached(job_id, 3), what="step 3")
        launcher, *ranks = sorted(
            children(), key=lambda child: "workers.devices.torchrun" not in child.cmdline()
        )
        assert len(ranks) == 2
        launcher.terminate()

    with while_training(stop):
        train_next("me", threading.Event())
    assert fresh(db, job).status == "queued"
    assert job.state_step is not None
    assert job.state_step >= 3
    assert events(db, job)[-1] == "released-2"  # the first attempt was the validation
    assert children() == []


def test_processes_share_the_cores_unless_somebody_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHERRY_TRAINER_THREADS", "0")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    get_settings.cache_clear()
    assert child_settings(1) == {}
    assert child_settings(64)["OMP_NUM_THREADS"] == "1"
    assert int(child_settings(2)["OMP_NUM_THREADS"]) == max(1, capacity.cores() // 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "OMP_NUM_THREADS" not in child_settings(2)
    monkeypatch.setenv("CHERRY_TRAINER_THREADS", "5")
    get_settings.cache_clear()
    assert child_settings(2)["OMP_NUM_THREADS"] == "5"


def test_the_family_of_a_process_ends_with_it_whatever_sessions_it_has_made() -> None:
    code = "import subprocess; subprocess.run(['sleep', '100'], start_new_session=True)"
    parent = process.spawn([sys.executable, "-c", code])
    (grandchild,) = wait_for(lambda: process.descendants(parent.pid), what="the grandchild")
    process.kill_family(parent)
    assert not is_alive(grandchild)
    assert parent.returncode == -signal.SIGKILL


def test_a_hanging_training_is_killed_and_queued_again(
    db: Session, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = queued(db)
    monkeypatch.setenv("CHERRY_PHASE_LIMIT", "PT1S")
    get_settings.cache_clear()

    def pause() -> None:
        os.kill(wait_for(training_pid, what="the training"), signal.SIGSTOP)

    with while_training(pause):
        train_next("me", threading.Event())
    assert fresh(db, job).status == "queued"
    assert job.fruitless_attempts == 1
    assert children() == []


@pytest.mark.long
def test_a_training_that_always_crashes_fails_with_its_last_words(
    db: Session, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = queued(db)
    monkeypatch.setenv("CHERRY_STORAGE_URL", "file:///proc/no-storage-here")
    monkeypatch.setenv("CHERRY_MAX_FRUITLESS_ATTEMPTS", "1")
    get_settings.cache_clear()
    train_next("me", threading.Event())
    assert fresh(db, job).status == "failed", events(db, job)
    assert job.error
    assert job.error["code"] in ("server_error", "invalid_training_file")


def test_a_file_deleted_after_validation_fails_the_job(db: Session, tiny_model: Path) -> None:
    job = queued(db)
    db.execute(delete(File).where(File.id == job.training_file))
    db.commit()
    train_next("me", threading.Event())
    assert fresh(db, job).status == "failed"
    assert job.error
    assert job.error["code"] == "invalid_training_file"


def test_weights_cut_off_after_validation_fail_the_job_at_once(
    db: Session, tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "cut")
    make_model(db, str(tmp_path / "cut"), "cut")
    job = queued(db, model="cut")
    attempt = job.attempt
    os.truncate(tmp_path / "cut" / "model.safetensors", 100_000)
    train_next("me", threading.Event())
    assert fresh(db, job).status == "failed"
    assert job.attempt == attempt + 1
    assert job.error
    assert job.error["code"] == "model_invalid"
    assert "model.safetensors cannot be used: tensor " in job.error["message"]


def test_workers_lost_again_and_again_fail_the_job(db: Session) -> None:
    job = make_job(db, status="queued", fruitless_attempts=get_settings().max_fruitless_attempts)
    train_next("me", threading.Event())
    assert fresh(db, job).status == "failed"
    assert job.error
    assert "lost" in job.error["message"]
