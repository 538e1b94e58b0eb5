"""Says where a job may go: the one table of moves, the one function that makes them, and who may ask it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Update, update
from sqlalchemy.orm import Session

from app.jobs.models import Job, Status

HeldStatus = Literal["validating_files", "running"]


MOVES: Mapping[Status, frozenset[Status]] = {
    "validating_files": frozenset({"queued", "failed", "cancelled"}),
    "queued": frozenset({"running", "paused", "failed", "cancelled"}),
    "running": frozenset({"running", "queued", "paused", "succeeded", "failed", "cancelled"}),
    "paused": frozenset({"queued", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
"""From each status, where a job may go. `running` to `running` is a new attempt after a lost worker."""


UNOWNED = {"lease_owner": None, "lease_expires_at": None, "phase": None, "phase_since": None}


OVER = {**UNOWNED, "estimated_finish": None}


class LeaseLost(Exception):
    """The job is not this worker's any more, which must stop and write nothing."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(f"Attempt {claim.attempt} of job {claim.job_id} lost its lease.")


class MoveRefused(Exception):
    """The job's status allows no such move."""


@dataclass(frozen=True)
class Claim:
    """The right to work on a job. `attempt` is the fence, `status` what the job is held in."""

    job_id: str
    attempt: int
    status: HeldStatus


def move(db: Session, job_id: str, to: Status, *, claim: Claim | None = None, **values: Any) -> Job:
    """Changes a job's status; there is no other way. With `claim` it does so only if that still holds.

    Raises `LeaseLost`, or `MoveRefused` if no status that the job may leave for `to` is its own.
    """
    sources = [status for status, targets in MOVES.items() if to in targets]
    if claim:
        sources = [status for status in sources if status == claim.status]
    statement = update(Job).where(Job.id == job_id, Job.status.in_(sources))
    if claim:
        statement = statement.where(Job.attempt == claim.attempt)
    moved = returning(db, statement.values(status=to, **values))
    if moved is None:
        if claim:
            raise LeaseLost(claim)
        raise MoveRefused(f"Job {job_id} cannot become {to}.")
    return moved


def update_held(db: Session, claim: Claim, **values: Any) -> Job:
    """Writes to a job that this claim holds, and locks its row until the end of the transaction.

    It is the first statement of every write of a run. Raises `LeaseLost`.
    """
    held = (Job.id == claim.job_id, Job.status == claim.status, Job.attempt == claim.attempt)
    job = returning(db, update(Job).where(*held).values(values or {"attempt": claim.attempt}))
    if job is None:
        raise LeaseLost(claim)
    return job


def returning(db: Session, statement: Update) -> Job | None:
    """Runs an UPDATE of one job and reads the row it left."""
    fresh = {"synchronize_session": False, "populate_existing": True}
    return db.scalars(statement.returning(Job), execution_options=fresh).one_or_none()
