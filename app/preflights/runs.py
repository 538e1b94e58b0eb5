"""Owns preflights on a worker's side: claim, lease, fence, and every move of a preflight's status.

It is the scheme of jobs (app/jobs/runs.py): a conditional UPDATE raises `attempt`, every later write names
the attempt, and what finds no row raises `LeaseLost`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from app import queue
from app.jobs import turns
from app.jobs.capacity import Capacity
from app.preflights.models import Preflight, Stage
from app.tenants.models import Project

log = structlog.get_logger(__name__)

STAGES: Mapping[queue.Queue, Stage] = {"validate": "files", "train": "samples"}
"""What of a preflight the workers of each queue do."""
TURNS: Mapping[Stage, turns.Turn] = {
    "files": Project.last_validation_at,
    "samples": Project.last_training_at,
}
UNOWNED = {"lease_owner": None, "lease_expires_at": None}
OVER = {**UNOWNED, "progress": None}


class LeaseLost(Exception):
    """The preflight is not this worker's any more, which must stop and write nothing."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(f"Attempt {claim.attempt} of preflight {claim.preflight_id} lost its lease.")


@dataclass(frozen=True)
class Claim:
    """The right to work on a preflight. `attempt` is the fence."""

    preflight_id: str
    attempt: int
    project_id: str
    stage: Stage


def claim_next(
    db: Session,
    kind: queue.Queue,
    owner: str,
    lease: timedelta,
    capacity: Capacity,
    passed_over: Sequence[str] = (),
) -> Claim | None:
    """Takes a preflight that is queued, or whose worker went silent: the oldest of the project whose turn it
    is, for the part that workers of this queue do.

    No preflight of the projects `passed_over` is taken.
    """
    stage = STAGES[kind]
    chosen = turns.take_next(db, Preflight, _free(stage, capacity, passed_over), TURNS[stage])
    if chosen is None:
        return None
    values = {
        "status": "running",
        "attempt": Preflight.attempt + 1,
        "lease_owner": owner,
        "lease_expires_at": func.now() + lease,
        "started_at": func.coalesce(Preflight.started_at, func.now()),
        "fruitless_attempts": Preflight.fruitless_attempts + 1,
    }
    taken = update(Preflight).where(Preflight.id == chosen).values(values)
    row = db.scalars(taken.returning(Preflight), execution_options={"populate_existing": True}).one()
    return Claim(row.id, row.attempt, row.project_id, stage)


def place_in_queue(
    db: Session, kind: queue.Queue, capacity: Capacity, passed_over: Sequence[str] = ()
) -> turns.Place | None:
    """Returns where the preflight waits that a worker of that queue on this machine would take next."""
    stage = STAGES[kind]
    return turns.first_place(db, Preflight, _free(stage, capacity, passed_over), TURNS[stage])


def has_work(db: Session, kind: queue.Queue, capacity: Capacity) -> bool:
    """Tells whether a worker of that queue on this machine would find a preflight."""
    wanted = select(Preflight.id).where(_free(STAGES[kind], capacity, ())).limit(1)
    return db.scalar(wanted) is not None


def held(db: Session, claim: Claim, **values: Any) -> Preflight:
    """Writes to a preflight that this claim holds, and locks its row. Raises `LeaseLost`."""
    mine = (
        Preflight.id == claim.preflight_id,
        Preflight.status == "running",
        Preflight.attempt == claim.attempt,
    )
    statement = update(Preflight).where(*mine).values(values or {"attempt": claim.attempt})
    fresh = {"synchronize_session": False, "populate_existing": True}
    row = db.scalars(statement.returning(Preflight), execution_options=fresh).one_or_none()
    if row is None:
        raise LeaseLost(claim)
    return row


def renew(db: Session, claim: Claim, lease: timedelta) -> None:
    """Keeps the preflight for another lease. Raises `LeaseLost`, after a cancel too."""
    held(db, claim, lease_expires_at=func.now() + lease)


def enter(db: Session, claim: Claim, phase: str, done: int = 0, total: int = 0) -> None:
    """Notes what is being done. Raises `LeaseLost`."""
    held(db, claim, progress={"phase": phase, "done": done, "total": total})


def hand_over(db: Session, claim: Claim, report: Mapping[str, Any]) -> None:
    """Queues a preflight again, for its samples at a worker that trains. Raises `LeaseLost`."""
    held(db, claim, status="queued", stage="samples", report=dict(report), fruitless_attempts=0, **OVER)
    queue.wake_trainer(db)


def release(db: Session, claim: Claim) -> None:
    """Gives a preflight back; the attempt does not count as one that ended early. Raises `LeaseLost`."""
    held(
        db,
        claim,
        status="queued",
        fruitless_attempts=func.greatest(Preflight.fruitless_attempts - 1, 0),
        **OVER,
    )
    _wake(db, claim)


def requeue_crashed(db: Session, claim: Claim) -> None:
    """Lets a preflight be tried again whose process ended by itself. Raises `LeaseLost`."""
    held(db, claim, status="queued", **OVER)
    _wake(db, claim)


def is_worn_out(db: Session, claim: Claim, most: int) -> bool:
    """Tells whether this attempt, if it ends now, was the last one that is made. Raises `LeaseLost`."""
    return held(db, claim).fruitless_attempts >= most


def was_worn_out(db: Session, claim: Claim, most: int) -> bool:
    """Tells whether the attempts before this one, whose workers went silent, were all that are made."""
    return held(db, claim).fruitless_attempts > most


def finish_succeeded(db: Session, claim: Claim, report: Mapping[str, Any]) -> None:
    """Ends a preflight with what was found, faults of the job included. Raises `LeaseLost`."""
    held(db, claim, status="succeeded", report=dict(report), finished_at=func.now(), **OVER)
    log.info("preflight_succeeded", preflight_id=claim.preflight_id, attempt=claim.attempt)


def finish_failed(db: Session, claim: Claim, code: str, message: str, param: str | None = None) -> None:
    """Ends a preflight that could not be carried out. What it had found stays. Raises `LeaseLost`."""
    error = {"code": code, "message": message, "param": param}
    held(db, claim, status="failed", error=error, finished_at=func.now(), **OVER)
    log.info("preflight_failed", preflight_id=claim.preflight_id, attempt=claim.attempt, code=code)


def _free(stage: Stage, capacity: Capacity, passed_over: Sequence[str]) -> ColumnElement[bool]:
    silent = and_(Preflight.status == "running", Preflight.lease_expires_at < func.now())
    free = [Preflight.stage == stage, or_(Preflight.status == "queued", silent)]
    free.append(Preflight.project_id.not_in(passed_over))
    if stage == "samples" and capacity.gpus == 0:  # one GPU is enough for samples
        free.append(func.coalesce(Preflight.resources["gpus"].as_integer(), 0) == 0)
    return and_(*free)


def _wake(db: Session, claim: Claim) -> None:
    (queue.wake_validator if claim.stage == "files" else queue.wake_trainer)(db)
