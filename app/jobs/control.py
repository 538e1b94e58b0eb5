"""Does what an owner asks of a job: cancel, pause, resume. A job at work is only asked; its worker obeys.

A request that comes twice, or asks for what is so already, changes nothing and is no error: the client
repeats a request whose response was lost.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app import queue
from app.events import service as events
from app.jobs import runs, status
from app.jobs.models import Job


def request_cancel(db: Session, job_id: str) -> Job:
    """Cancels a job: at once unless it runs; a running one is stopped by its worker within seconds.

    Raises `status.MoveRefused` for a job that is over.
    """
    job, is_at_work = _locked(db, job_id)
    if not is_at_work:
        return runs.cancel_now(db, job_id, None, cancel_requested_at=func.now())
    job = _set(db, job_id, cancel_requested_at=func.coalesce(Job.cancel_requested_at, func.now()))
    events.append(db, job_id, "cancel-requested", "Cancelling; the job stops at its next step")
    return job


def request_pause(db: Session, job_id: str) -> Job:
    """Pauses a job: at once if it is queued; a running one saves itself at its next step and is then paused.

    A job that is paused or pausing stays so, also one that waited for room. Raises `status.MoveRefused` for
    one that is over, is being cancelled or is still validating.
    """
    job, is_at_work = _locked(db, job_id)
    if job.status == "paused":
        return job if job.waits_for_room is None else _set(db, job_id, waits_for_room=None)
    if job.status not in ("queued", "running") or job.cancel_requested_at is not None:
        raise status.MoveRefused(f"Job {job_id} cannot be paused.")
    if not is_at_work:
        return runs.pause_now(db, job_id, None)
    if job.pause_requested_at is None:
        job = _set(db, job_id, pause_requested_at=func.now())
        events.append(db, job_id, f"pausing-{job.last_seq}", "Pausing; the job stops at its next step")
    return job


def request_resume(db: Session, job_id: str) -> Job:
    """Queues a paused job again; a job that is still pausing goes on. One that is queued or runs stays so.

    Raises `status.MoveRefused` for a job that is over or is still validating.
    """
    job, _ = _locked(db, job_id)
    if job.status not in ("queued", "running", "paused"):
        raise status.MoveRefused(f"Job {job_id} cannot be resumed.")
    if job.pause_requested_at is None:
        return job
    key = f"resumed-{job.last_seq}"
    if job.status == "running":
        job = _set(db, job_id, pause_requested_at=None)
        events.append(db, job_id, key, "The pause was withdrawn; the job goes on")
        return job
    job = status.move(db, job_id, "queued", pause_requested_at=None, waits_for_room=None)
    events.append(db, job_id, key, "The job was resumed, moving job to queued state")
    queue.wake_trainer(db)
    return job


def _locked(db: Session, job_id: str) -> tuple[Job, bool]:
    """Returns a job's row, locked, and whether a worker is at its training."""
    query = select(Job, Job.lease_expires_at >= func.now()).where(Job.id == job_id).with_for_update()
    job, is_owned = db.execute(query, execution_options={"populate_existing": True}).one()
    return job, job.status == "running" and bool(is_owned)


def _set(db: Session, job_id: str, **values: Any) -> Job:
    """Writes to a job whose row this transaction has locked."""
    job = status.returning(db, update(Job).where(Job.id == job_id).values(values))
    assert job is not None
    return job
