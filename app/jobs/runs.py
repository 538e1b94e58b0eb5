"""Owns jobs: claim, lease, fence, and every move of a job's status.

A worker owns a job after a conditional UPDATE that raised `attempt`. Every later write of that worker names
the attempt; once another worker has claimed the job (the first one's lease had run out), such a write finds
no row and raises `LeaseLost`. Leases run on the database's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, and_, exists, func, not_, or_, select, update
from sqlalchemy.orm import Session

from app import queue
from app.events import service as events
from app.events.models import JobEvent
from app.jobs import turns
from app.jobs.capacity import Capacity
from app.jobs.models import Job
from app.jobs.status import OVER, UNOWNED, Claim, HeldStatus, move, returning, update_held
from app.tenants.models import Project
from app.webhooks import service as webhooks

log = structlog.get_logger(__name__)


WAITS = "waits-for-resources"
"""The key of the one event that tells of a job too large for the worker that looked."""
TURNS: Mapping[HeldStatus, turns.Turn] = {
    "validating_files": Project.last_validation_at,
    "running": Project.last_training_at,
}
"""Where the last turn of a project is noted: the one whose turn was longest ago is next."""


@dataclass(frozen=True)
class Heartbeat:
    """What a worker learns when it renews its lease."""

    cancel_requested: bool
    phase: str | None
    seconds_in_phase: float


def claim_for_validation(
    db: Session, owner: str, lease: timedelta, passed_over: Sequence[str] = ()
) -> Claim | None:
    """Takes a job whose files wait for validation: the oldest of the project whose turn it is.

    No job of the projects `passed_over` is taken.
    """
    wanted = and_(_waits_for_validation(), Job.project_id.not_in(passed_over))
    job = _take(db, wanted, "validating_files", owner, lease)
    return Claim(job.id, job.attempt, "validating_files") if job else None


def next_for_training(db: Session, capacity: Capacity, passed_over: ColumnElement[bool]) -> Job | None:
    """Returns the job that a worker on this machine takes next: the oldest of the project whose turn it is.

    It is one that is queued, or whose worker went silent, that fits the machine and is not `passed_over`. The
    owners of jobs that are too large for it are told so, once. Jobs whose worker went silent after their
    owner had asked for a pause or a cancel get that instead of another attempt.
    """
    _end_lost_as_asked(db)
    _tell_of_waiting(db, capacity)
    wanted = and_(trainable(), _fits(capacity), not_(passed_over))
    found: Job | None = turns.first_row(db, Job, wanted, TURNS["running"])
    return found


def needs_gpu() -> ColumnElement[bool]:
    """Selects the jobs that have a GPU where there is one: all but those that ask for CPU processes."""
    return func.coalesce(Job.resources["processes"].as_integer(), 0) == 0


def claim_for_training(
    db: Session, owner: str, lease: timedelta, capacity: Capacity, job_id: str | None = None
) -> Claim | None:
    """Takes the job that `next_for_training` tells of; with a `job_id` that one, if it is still free."""
    _end_lost_as_asked(db)
    _tell_of_waiting(db, capacity)
    wanted = and_(trainable(), _fits(capacity))
    if job_id is not None:
        wanted = and_(wanted, Job.id == job_id)
    job = _take(db, wanted, "running", owner, lease)
    if job is None:
        return None
    events.append(db, job.id, "started", "Fine-tuning job started")
    return Claim(job.id, job.attempt, "running")


def tell_of_devices(db: Session, job_id: str, message: str) -> None:
    """Tells a job's owner, once for each attempt, that it is next but that its devices are taken."""
    waiting = select(Job.attempt).where(Job.id == job_id, trainable()).with_for_update(skip_locked=True)
    if (attempt := db.scalars(waiting).first()) is not None:
        events.append(db, job_id, f"waits-for-devices-{attempt}", message)


def trainable() -> ColumnElement[bool]:
    """Selects the jobs that a trainer may take."""
    return or_(Job.status == "queued", and_(_is_silent(), not_(_is_asked_to_end())))


def has_work(db: Session, kind: queue.Queue, capacity: Capacity) -> bool:
    """Tells whether a worker of that queue on this machine would find a job, or one to tell of its
    waiting."""
    wanted = _waits_for_validation()
    if kind == "train":
        lost = and_(_is_silent(), _is_asked_to_end())
        wanted = or_(and_(trainable(), _fits(capacity)), _waits_untold(capacity), lost)
    return db.scalar(select(Job.id).where(wanted).limit(1)) is not None


def place_in_queue(
    db: Session, kind: queue.Queue, capacity: Capacity, passed_over: Sequence[str] = ()
) -> turns.Place | None:
    """Returns where the job waits that a worker of that queue on this machine would take next."""
    if kind == "train":
        return turns.first_place(db, Job, and_(trainable(), _fits(capacity)), TURNS["running"])
    wanted = and_(_waits_for_validation(), Job.project_id.not_in(passed_over))
    return turns.first_place(db, Job, wanted, TURNS["validating_files"])


def renew(db: Session, claim: Claim, lease: timedelta) -> Heartbeat:
    """Keeps the job for another lease. Returns what the worker must know. Raises `LeaseLost`."""
    job = update_held(db, claim, lease_expires_at=func.now() + lease)
    seconds = db.scalar(select(func.extract("epoch", func.clock_timestamp() - job.phase_since)))
    return Heartbeat(job.cancel_requested_at is not None, job.phase, float(seconds or 0.0))


def set_phase(db: Session, claim: Claim, phase: str) -> Job:
    """Notes that the run is alive and has entered this phase. Raises `LeaseLost`."""
    return update_held(db, claim, phase=phase, phase_since=func.now())


def made_step(db: Session, claim: Claim, step: int, **values: Any) -> Job:
    """Notes a finished step. A step never reached before makes the attempt count as fruitful."""
    job = update_held(db, claim)
    if step > job.last_step:
        values |= {"last_step": step, "fruitless_attempts": 0}
    return update_held(db, claim, **values) if values else job


def queue_for_training(db: Session, claim: Claim, config: Mapping[str, Any], total_steps: int) -> None:
    """Stores the resolved config, queues the job and wakes a trainer: the files are good."""
    values = {"config": dict(config), "total_steps": total_steps, "fruitless_attempts": 0}
    move(db, claim.job_id, "queued", claim=claim, **values, **UNOWNED)
    events.append(db, claim.job_id, "validated", "Files validated, moving job to queued state")
    queue.wake_trainer(db)


def release(db: Session, claim: Claim, why: str = "The worker stopped") -> None:
    """Gives the job back, cancelled or paused if its owner asked for that.

    The attempt does not count as fruitless.
    """
    values = {**UNOWNED, "fruitless_attempts": func.greatest(Job.fruitless_attempts - 1, 0)}
    if claim.status == "validating_files":
        update_held(db, claim, **values)
        queue.wake_validator(db)
        return
    if end_as_asked(db, claim):
        return
    job = move(db, claim.job_id, "queued", claim=claim, **values)
    message = f"{why}; the job is queued again and goes on from step {job.state_step or 0}"
    events.append(db, job.id, f"released-{job.attempt}", message)
    queue.wake_trainer(db)


def requeue_crashed(db: Session, claim: Claim, reason: str) -> None:
    """Lets a job be tried again whose process ended by itself, and says why.

    If its owner had asked for a cancel or a pause, that is what becomes of it.
    """
    job = update_held(db, claim)
    if claim.status == "validating_files":
        message = f"The validation ended early: {reason}. It is tried again"
        events.append(db, job.id, f"crashed-{job.attempt}", message, level="warn")
        update_held(db, claim, **UNOWNED)
        queue.wake_validator(db)
        return
    message = f"The training process ended early: {reason}. Going on from step {job.state_step or 0}"
    events.append(db, job.id, f"crashed-{job.attempt}", message, level="warn")
    if end_as_asked(db, claim):
        return
    move(db, claim.job_id, "queued", claim=claim, **UNOWNED)
    queue.wake_trainer(db)


def is_worn_out(db: Session, claim: Claim, max_fruitless_attempts: int) -> bool:
    """Tells whether this attempt, if it ends now, was the last one that the job is worth. Raises
    `LeaseLost`."""
    return update_held(db, claim).fruitless_attempts >= max_fruitless_attempts


def was_worn_out(db: Session, claim: Claim, max_fruitless_attempts: int) -> bool:
    """Tells whether the attempts before this one were already all that the job is worth.

    Their workers went silent, so that nobody could say so then. Raises `LeaseLost`.
    """
    return update_held(db, claim).fruitless_attempts > max_fruitless_attempts


def finish_failed(db: Session, claim: Claim, code: str, message: str, param: str | None = None) -> None:
    """Ends a job with an error that its owner can act on."""
    error = {"code": code, "message": message, "param": param}
    job = move(db, claim.job_id, "failed", claim=claim, error=error, finished_at=func.now(), **OVER)
    events.append(db, claim.job_id, "failed", f"The job failed: {message}", level="error")
    webhooks.emit(db, job.project_id, "fine_tuning.job.failed", job.id)
    log.info("job_failed", job_id=claim.job_id, attempt=claim.attempt, code=code)


def finish_cancelled(db: Session, claim: Claim) -> None:
    """Ends a job whose owner asked for it. What it made so far stays."""
    cancel_now(db, claim.job_id, claim)


def finish_succeeded(
    db: Session,
    claim: Claim,
    *,
    fine_tuned_model: str,
    result_files: list[str],
    trained_tokens: int | None,
    verdict: dict[str, Any] | None = None,
    steps: int | None = None,
) -> Job:
    """Ends a job that has something to deliver. Its last event holds the verdict, where there is one.

    `steps` are all that the run made, where it came to its end, which may have been an early one.
    """
    outcome = {
        "fine_tuned_model": fine_tuned_model,
        "result_files": result_files,
        "trained_tokens": trained_tokens,
        "finished_at": func.now(),
        "verdict": verdict,
        "total_steps": Job.total_steps if steps is None else steps,
    }
    job = move(db, claim.job_id, "succeeded", claim=claim, **outcome, **OVER)
    events.append(db, job.id, "model", f"New fine-tuned model created: {fine_tuned_model}")
    data = {"verdict": verdict} if verdict else None
    events.append(db, job.id, "succeeded", "The job has successfully completed", data=data, is_metrics=False)
    webhooks.emit(db, job.project_id, "fine_tuning.job.succeeded", job.id)
    return job


def pause_now(
    db: Session,
    job_id: str,
    claim: Claim | None,
    why: str = "resume it to go on",
    *,
    level: events.Level = "info",
    **values: Any,
) -> Job:
    """Makes a job paused: this is the one place where that comes true."""
    values |= {"pause_requested_at": func.coalesce(Job.pause_requested_at, func.now()), **OVER}
    job = move(db, job_id, "paused", claim=claim, fruitless_attempts=0, **values)
    after = f" after step {job.state_step}" if job.state_step else ""
    events.append(db, job_id, f"paused-{job.last_seq}", f"The job was paused{after}; {why}", level=level)
    webhooks.emit(db, job.project_id, "fine_tuning.job.paused", job.id)
    return job


def cancel_now(db: Session, job_id: str, claim: Claim | None, **values: Any) -> Job:
    """Makes a job cancelled: this is the one place where that comes true."""
    job = move(db, job_id, "cancelled", claim=claim, finished_at=func.now(), **OVER, **values)
    events.append(db, job_id, "cancelled", "The job was cancelled")
    webhooks.emit(db, job.project_id, "fine_tuning.job.cancelled", job.id)
    return job


def end_as_asked(db: Session, claim: Claim) -> bool:
    """Cancels or pauses a job that this claim gives back, if its owner asked for that meanwhile."""
    job = update_held(db, claim)
    if job.cancel_requested_at is not None:
        cancel_now(db, job.id, claim)
    elif job.pause_requested_at is not None:
        pause_now(db, job.id, claim)
    else:
        return False
    return True


def _end_lost_as_asked(db: Session) -> None:
    """Does the same for jobs whose worker is not there any more to do it."""
    lost = select(Job).where(_is_silent(), _is_asked_to_end()).order_by(Job.id)
    for job in db.scalars(lost.with_for_update(skip_locked=True)).all():
        if job.cancel_requested_at is not None:
            cancel_now(db, job.id, None)
        else:
            pause_now(db, job.id, None)


def _waits_for_validation() -> ColumnElement[bool]:
    free = or_(Job.lease_expires_at.is_(None), Job.lease_expires_at < func.now())
    return and_(Job.status == "validating_files", free)


def _is_silent() -> ColumnElement[bool]:
    """Selects the jobs whose worker stopped renewing its lease."""
    return and_(Job.status == "running", Job.lease_expires_at < func.now())


def _is_asked_to_end() -> ColumnElement[bool]:
    return or_(Job.cancel_requested_at.is_not(None), Job.pause_requested_at.is_not(None))


def _fits(capacity: Capacity) -> ColumnElement[bool]:
    return and_(
        func.coalesce(Job.resources["gpus"].as_integer(), 0) <= capacity.gpus,
        func.coalesce(Job.resources["processes"].as_integer(), 0) <= capacity.processes,
    )


def _waits_untold(capacity: Capacity) -> ColumnElement[bool]:
    """Returns the jobs that could be trained, but not here, and whose owners do not know yet."""
    told = exists().where(JobEvent.job_id == Job.id, JobEvent.key == WAITS)
    return and_(trainable(), not_(_fits(capacity)), not_(told))


def _tell_of_waiting(db: Session, capacity: Capacity) -> None:
    waiting = select(Job).where(_waits_untold(capacity)).order_by(Job.created_at, Job.id)
    for job in db.scalars(waiting.with_for_update(skip_locked=True)).all():
        ((kind, wanted),) = (job.resources or {}).items()
        here = capacity.gpus if kind == "gpus" else capacity.processes
        name = "GPUs" if kind == "gpus" else "CPU processes"
        message = f"The job waits for a worker with {wanted} {name}; the one that looked has {here}"
        events.append(db, job.id, WAITS, message, level="warn")


def _take(db: Session, free: ColumnElement[bool], to: HeldStatus, owner: str, lease: timedelta) -> Job | None:
    """Claims a free job. Two workers never get the same one: the row lock decides."""
    candidate = turns.take_next(db, Job, free, TURNS[to])
    if candidate is None:
        return None
    values: dict[str, Any] = {
        "attempt": Job.attempt + 1,
        "lease_owner": owner,
        "lease_expires_at": func.now() + lease,
        "phase": None,
        "phase_since": func.now(),
        "fruitless_attempts": Job.fruitless_attempts + 1,
    }
    if to == "running":
        return move(db, candidate, to, **values, started_at=func.coalesce(Job.started_at, func.now()))
    return returning(db, update(Job).where(Job.id == candidate).values(values))
