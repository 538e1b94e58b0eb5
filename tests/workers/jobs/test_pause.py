"""Pausing and resuming, from the worker's side: who settles what, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.db import unit_of_work
from app.events.models import JobEvent, JobMetrics
from app.jobs import control, runs, status
from app.jobs.capacity import Capacity
from app.jobs.models import Job
from app.jobs.status import Claim, MoveRefused
from app.rollouts.models import Rollout
from app.settings import get_settings
from app.storage import get_storage
from app.webhooks.models import WebhookEvent
from tests.e2e.service import wait_for
from tests.factories import make_webhook_endpoint
from tests.workers.rows import data_rows, fresh, make_job
from tests.workers.trainings import children, reached, training_pid, while_training
from workers.jobs.attempt import End, settle, train_next
from workers.jobs.faults import Exit
from workers.jobs.sweep import sweep
from workers.jobs.validators import validate_all

LEASE = timedelta(seconds=30)
HERE = Capacity(gpus=0, processes=1)
RUNNING = threading.Event()


def claim() -> Claim | None:
    with unit_of_work() as db:
        return runs.claim_for_training(db, "me", LEASE, HERE)


def ask(what: Callable[[Session, str], Job], job_id: str) -> None:
    with unit_of_work() as db:
        what(db, job_id)


def lose_worker(db: Session, job: Job) -> None:
    db.execute(update(Job).where(Job.id == job.id).values(lease_expires_at=func.now() - LEASE))
    db.commit()


def messages(db: Session, job: Job) -> list[str]:
    db.rollback()
    return list(db.scalars(select(JobEvent.message).where(JobEvent.job_id == job.id).order_by(JobEvent.seq)))


@pytest.fixture
def running(db: Session) -> tuple[Job, Claim]:
    """A job at work."""
    job = make_job(db, status="queued")
    held = claim()
    assert held
    return job, held


@pytest.fixture
def pausing(running: tuple[Job, Claim]) -> tuple[Job, Claim]:
    """A job at work that was asked to pause."""
    ask(control.request_pause, running[0].id)
    return running


def test_a_queued_job_is_paused_at_once_and_nobody_takes_it(db: Session) -> None:
    job = make_job(db, status="queued", fruitless_attempts=2)
    ask(control.request_pause, job.id)
    assert fresh(db, job).status == "paused"
    assert job.fruitless_attempts == 0
    assert not runs.has_work(db, "train", HERE)
    assert claim() is None
    assert messages(db, job) == ["The job was paused; resume it to go on"]


def test_who_wants_to_know_of_pauses_is_told(db: Session) -> None:
    job = make_job(db, status="queued")
    make_webhook_endpoint(db, job.project_id, types=("fine_tuning.job.paused",))
    db.commit()
    ask(control.request_pause, job.id)
    body = json.loads(db.scalars(select(WebhookEvent.body)).one())
    assert (body["type"], body["data"]) == ("fine_tuning.job.paused", {"id": job.id})


def test_a_paused_job_is_queued_again_and_claimed_under_a_new_attempt(db: Session) -> None:
    job = make_job(db, status="queued", attempt=3, state_step=20)
    ask(control.request_pause, job.id)
    ask(control.request_resume, job.id)
    assert fresh(db, job).status == "queued"
    assert job.pause_requested_at is None
    assert claim() == Claim(job.id, 4, "running")
    assert messages(db, job)[:2] == [
        "The job was paused after step 20; resume it to go on",
        "The job was resumed, moving job to queued state",
    ]


@pytest.mark.parametrize("what", [control.request_pause, control.request_resume])
@pytest.mark.parametrize("status", ["validating_files", "succeeded", "failed", "cancelled"])
def test_only_jobs_that_could_run_can_pause_or_resume(
    db: Session, what: Callable[[Session, str], Job], status: str
) -> None:
    job = make_job(db, status=status)
    with pytest.raises(MoveRefused):
        ask(what, job.id)
    assert fresh(db, job).status == status
    assert messages(db, job) == []


def test_requests_that_come_twice_change_and_tell_nothing(db: Session, pausing: tuple[Job, Claim]) -> None:
    job, held = pausing
    ask(control.request_pause, job.id)
    settle(held, End.EXITED, Exit.PAUSED)
    ask(control.request_pause, job.id)
    assert fresh(db, job).status == "paused"
    for _ in range(2):
        ask(control.request_resume, job.id)
    assert fresh(db, job).status == "queued"
    assert claim()
    ask(control.request_resume, job.id)
    assert fresh(db, job).status == "running"
    told = messages(db, job)
    assert len([each for each in told if each.startswith("Pausing")]) == 1
    assert len([each for each in told if "resumed" in each]) == 1


def test_a_job_may_pause_many_times(db: Session) -> None:
    job = make_job(db, status="queued")
    for _ in range(3):
        ask(control.request_pause, job.id)
        ask(control.request_resume, job.id)
    assert len(messages(db, job)) == 6


def test_the_run_learns_of_a_pause_as_it_tells_of_its_phases(db: Session, pausing: tuple[Job, Claim]) -> None:
    from workers.jobs.db_recorder import DatabaseRecorder

    job, held = pausing
    recorder = DatabaseRecorder(held, get_storage())
    assert not recorder.is_pause_asked()
    recorder.phase("sampling")
    assert recorder.is_pause_asked()
    ask(control.request_resume, job.id)
    recorder.phase("updating")
    assert not recorder.is_pause_asked()


def test_resuming_while_the_job_still_pauses_lets_it_go_on(db: Session, pausing: tuple[Job, Claim]) -> None:
    job, held = pausing
    ask(control.request_resume, job.id)
    assert fresh(db, job).status == "running"
    settle(held, End.EXITED, Exit.PAUSED)  # the run had seen the pause already
    assert fresh(db, job).status == "queued"
    assert job.fruitless_attempts == 0
    assert messages(db, job)[-2:] == [
        "The pause was withdrawn; the job goes on",
        "The pause was withdrawn; the job is queued again and goes on from step 0",
    ]
    assert claim()


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param(End.EXITED, Exit.PAUSED, id="as the run saved itself"),
        pytest.param(End.WORKER_STOPS, -signal.SIGKILL, id="as its worker stopped"),
        pytest.param(End.EXITED, Exit.DATABASE_AWAY, id="as the database was away"),
        pytest.param(End.EXITED, -signal.SIGKILL, id="as the run was killed"),
        pytest.param(End.HANGS, -signal.SIGKILL, id="as the run hung"),
    ],
)
def test_a_pausing_job_is_paused_however_its_attempt_ends(
    db: Session, pausing: tuple[Job, Claim], end: End, code: int
) -> None:
    job, held = pausing
    settle(held, end, code)
    assert fresh(db, job).status == "paused"
    assert job.lease_owner is None
    assert claim() is None


def test_a_pausing_job_whose_worker_is_lost_is_paused_by_the_next_that_looks(
    db: Session, pausing: tuple[Job, Claim]
) -> None:
    job, held = pausing
    lose_worker(db, job)
    assert runs.has_work(db, "train", HERE)
    assert claim() is None
    assert fresh(db, job).status == "paused"
    assert not runs.has_work(db, "train", HERE)
    with pytest.raises(status.LeaseLost), unit_of_work() as other:
        runs.set_phase(other, held, "sampling")


@pytest.mark.parametrize(
    ("what", "status"), [(control.request_pause, "paused"), (control.request_cancel, "cancelled")]
)
def test_a_job_whose_worker_is_lost_obeys_at_once(
    db: Session, running: tuple[Job, Claim], what: Callable[[Session, str], Job], status: str
) -> None:
    job, _ = running
    lose_worker(db, job)
    ask(what, job.id)
    assert fresh(db, job).status == status


def test_cancel_wins_over_pause(db: Session, pausing: tuple[Job, Claim]) -> None:
    job, held = pausing
    ask(control.request_cancel, job.id)
    with unit_of_work() as other:
        assert runs.renew(other, held, LEASE).cancel_requested
    with pytest.raises(MoveRefused):
        ask(control.request_pause, job.id)
    settle(held, End.EXITED, Exit.PAUSED)  # it saved itself before the cancel was seen
    assert fresh(db, job).status == "cancelled"


def test_a_cancelled_job_whose_worker_is_lost_is_not_trained_again(
    db: Session, running: tuple[Job, Claim]
) -> None:
    job, _ = running
    ask(control.request_cancel, job.id)
    lose_worker(db, job)
    assert claim() is None
    assert fresh(db, job).status == "cancelled"


def test_a_paused_job_can_be_cancelled_and_its_state_goes(db: Session) -> None:
    job = make_job(db, status="paused", state_step=4, pause_requested_at=func.now())
    other = make_job(db, status="paused", state_step=4)
    for each in (job, other):
        get_storage().put_bytes(f"jobs/{each.id}/state/4-1/manifest.json", b"{}")
    ask(control.request_cancel, job.id)
    assert fresh(db, job).status == "cancelled"
    assert job.finished_at is not None
    sweep(RUNNING)
    assert get_storage().list_keys(f"jobs/{job.id}") == []
    assert get_storage().list_keys(f"jobs/{other.id}") != []


def test_a_job_that_finishes_before_it_can_pause_has_succeeded(
    db: Session, pausing: tuple[Job, Claim]
) -> None:
    job, held = pausing
    with unit_of_work() as other:
        runs.finish_succeeded(other, held, fine_tuned_model="ft", result_files=[], trained_tokens=1)
    settle(held, End.EXITED, Exit.OUTCOME_WRITTEN)
    assert fresh(db, job).status == "succeeded"


# Real trainings.

LONG = {"n_epochs": 8, "eval_interval": 16}


def queued(db: Session, **values: Any) -> Job:
    job = make_job(db, validation=data_rows(2), hyperparameters=LONG, **values)
    assert validate_all("me", RUNNING)
    assert fresh(db, job).status == "queued", job.error
    return job


def history(db: Session, job: Job) -> dict[int, dict[str, Any]]:
    """What the job measured, without times."""
    db.rollback()
    rows = db.scalars(select(JobMetrics).where(JobMetrics.job_id == job.id))
    return {
        row.step: {
            name: value
            for name, value in row.values.items()
            if not name.startswith("time/") and "seconds" not in name
        }
        for row in rows
    }


def completions(db: Session, job: Job) -> list[tuple[Any, ...]]:
    columns = (Rollout.step, Rollout.row, Rollout.sample, Rollout.text, Rollout.reward)
    trained = (
        select(*columns).where(Rollout.job_id == job.id, Rollout.split == "train").order_by(*columns[:3])
    )
    return [tuple(row) for row in db.execute(trained)]


def last_weights(db: Session, job: Job) -> str:
    """Sum of the weights of the last checkpoint of any."""
    newest = select(Checkpoint.manifest).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step.desc())
    files: dict[str, dict[str, str]] = db.scalars(newest.limit(1)).one()["files"]
    return files["model/model.safetensors"]["sha256"]


@pytest.mark.slow
@pytest.mark.long
def test_a_paused_and_resumed_job_has_the_history_of_one_that_never_paused(
    db: Session, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHERRY_TRAINER_THREADS", "1")
    get_settings.cache_clear()
    whole = queued(db)
    assert train_next("me", RUNNING)
    assert fresh(db, whole).status == "succeeded", whole.error
    job = queued(db)
    job_id = job.id

    def pause() -> None:
        wait_for(lambda: reached(job_id, 2), what="step 2")
        ask(control.request_pause, job_id)

    with while_training(pause):
        train_next("me", RUNNING)
    assert fresh(db, job).status == "paused", messages(db, job)
    assert job.state_step is not None
    assert 2 <= job.state_step < 16
    assert children() == []
    of_pause = select(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.step == job.state_step)
    snapshot = db.scalars(of_pause).one()
    assert snapshot.storage_key
    assert get_storage().exists(f"{snapshot.storage_key}/model/model.safetensors")
    told = messages(db, job)[-2:]
    assert told[0] == (
        f"Checkpoint created at step {snapshot.step} with Snapshot ID: {snapshot.model_name}"
    ), told
    assert told[1].startswith(f"The job was paused after step {snapshot.step}")
    ask(control.request_resume, job.id)
    assert train_next("me", RUNNING)
    assert fresh(db, job).status == "succeeded", job.error
    assert history(db, job) == history(db, whole)
    assert completions(db, job) == completions(db, whole)
    assert last_weights(db, job) == last_weights(db, whole)
    assert job.trained_tokens == whole.trained_tokens
    db.refresh(snapshot)
    assert snapshot.storage_key, "what a pause left stays"


@pytest.mark.long
@pytest.mark.slow
def test_a_training_killed_while_it_pauses_is_paused(db: Session, tiny_model: Path) -> None:
    job = queued(db)
    job_id = job.id

    def pause_and_kill() -> None:
        wait_for(lambda: reached(job_id, 2), what="step 2")
        pid = training_pid()
        assert pid
        ask(control.request_pause, job_id)
        os.kill(pid, signal.SIGKILL)

    with while_training(pause_and_kill):
        train_next("me", RUNNING)
    assert fresh(db, job).status == "paused"
    ask(control.request_resume, job.id)
    assert train_next("me", RUNNING)
    assert fresh(db, job).status == "succeeded", job.error
    assert sorted(history(db, job)) == list(range(17))
