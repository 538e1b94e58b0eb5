"""Jobs of the methods supervised and dpo, trained by their worker in real processes."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.db import unit_of_work
from app.events.models import JobEvent
from app.files.models import File
from app.jobs import control
from app.models.models import Model
from app.settings import get_settings
from app.storage import get_storage
from tests.e2e.service import wait_for
from tests.workers.rows import chat_rows, fresh, make_tuned_job, preference_rows
from tests.workers.trainings import reached, training_pid, while_training
from workers.jobs.attempt import train_next
from workers.jobs.validators import validate_all

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, settings: object) -> None:
    monkeypatch.setenv("CHERRY_TRAINER_THREADS", "1")
    monkeypatch.setenv("CHERRY_LEASE", "PT20S")
    get_settings.cache_clear()


@pytest.mark.long
def test_a_killed_supervised_job_goes_on_and_delivers_its_last_epoch(db: Session, tiny_model: Path) -> None:
    asked = {"n_epochs": 4, "batch_size": 4, "learning_rate": 5e-3}
    job = make_tuned_job(
        db, "supervised", chat_rows(12), validation=chat_rows(14)[12:], hyperparameters=asked
    )
    assert validate_all("me", threading.Event())
    job_id = job.id

    def kill() -> None:
        wait_for(lambda: reached(job_id, 4), what="step 4")
        pid = training_pid()
        assert pid
        assert psutil.Process(pid).environ()["HF_HUB_OFFLINE"] == "1"  # TRL would tell of its trainers
        os.kill(pid, signal.SIGKILL)

    with while_training(kill):
        train_next("me", threading.Event())
    assert fresh(db, job).status == "queued"
    assert train_next("me", threading.Event())
    assert fresh(db, job).status == "succeeded", job.error
    assert job.trained_tokens

    told = db.execute(
        select(JobEvent.message, JobEvent.data).where(JobEvent.job_id == job.id).order_by(JobEvent.seq)
    ).all()
    steps = [(message, data) for message, data in told if data]
    assert [data["step"] for _, data in steps] == list(range(1, 13))
    first, last = steps[0][1], steps[-1][1]
    assert steps[0][0] == f"Step 1/12: training loss={first['train_loss']:.2f}"
    assert steps[-1][0] == (
        f"Step 12/12: training loss={last['train_loss']:.2f}, validation loss={last['valid_loss']:.2f}, "
        f"full validation loss={last['full_valid_loss']:.2f}"
    )
    assert last["train_loss"] < first["train_loss"]
    assert last["total_steps"] == 12

    own = select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step)
    checkpoints = db.scalars(own).all()
    assert [each.step for each in checkpoints if each.storage_key] == [6, 9, 12]
    assert all(each.kl > 0 for each in checkpoints)
    model = db.scalars(select(Model).where(Model.name == job.fine_tuned_model)).one()
    assert model.storage_key == checkpoints[-1].storage_key
    file = db.get_one(File, job.result_files[0])
    header, *lines = b"".join(get_storage().open_stream(file.storage_key)).decode().splitlines()
    assert header.startswith("step,train_loss,train_mean_token_accuracy,valid_loss,")
    assert len(lines) == 12
    assert get_storage().list_keys(f"jobs/{job.id}/state") == []


@pytest.mark.long
def test_a_dpo_job_prefers_the_preferred(db: Session, tiny_model: Path) -> None:
    asked = {"n_epochs": 3, "batch_size": 4, "learning_rate": 5e-3, "beta": 0.2}
    job = make_tuned_job(
        db, "dpo", preference_rows(8), validation=preference_rows(10)[8:], hyperparameters=asked
    )
    assert validate_all("me", threading.Event())
    assert train_next("me", threading.Event())
    assert fresh(db, job).status == "succeeded", job.error
    newest = db.scalars(
        select(JobEvent.data).where(JobEvent.job_id == job.id, JobEvent.key == "step-6")
    ).one()
    assert newest["full_valid_reward_accuracy"] == 1.0
    assert newest["full_valid_reward_margin"] > 0
    assert newest["full_valid_loss"] < 0.69  # log 2: where it began


@pytest.mark.long
def test_a_running_job_is_paused_with_a_snapshot_and_cancelled_after_it_was_resumed(
    db: Session, tiny_model: Path
) -> None:
    asked = {"n_epochs": 50, "batch_size": 1, "learning_rate": 1e-3}
    job = make_tuned_job(db, "supervised", chat_rows(12), hyperparameters=asked)
    assert validate_all("me", threading.Event())
    job_id = job.id

    def pause() -> None:
        wait_for(lambda: reached(job_id, 2), what="step 2")
        with unit_of_work() as other:
            control.request_pause(other, job_id)

    with while_training(pause):
        train_next("me", threading.Event())
    assert fresh(db, job).status == "paused"
    paused_at = job.last_step
    assert 2 <= paused_at < 600
    snapshot = db.scalars(select(Checkpoint).where(Checkpoint.is_snapshot)).one()
    assert snapshot.step == paused_at == job.state_step
    with unit_of_work() as other:
        control.request_resume(other, job_id)

    def cancel() -> None:
        wait_for(lambda: reached(job_id, paused_at + 1), what="a step after the pause")
        with unit_of_work() as other:
            control.request_cancel(other, job_id)

    with while_training(cancel):
        train_next("me", threading.Event())
    assert fresh(db, job).status == "cancelled"
    steps = db.scalars(
        select(JobEvent.key)
        .where(JobEvent.job_id == job_id, JobEvent.type == "metrics")
        .order_by(JobEvent.seq)
    ).all()
    assert list(steps) == [f"step-{step}" for step in range(1, job.last_step + 1)]
