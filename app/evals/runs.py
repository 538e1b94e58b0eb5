"""Owns runs of evals on a worker's side: claim, lease, fence, and every move of a run's status.

It is the scheme of jobs (app/jobs/runs.py): a conditional UPDATE raises `attempt`, every later write names
the attempt, and what finds no row raises `LeaseLost`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from app import queue
from app.evals.models import EvalRun
from app.jobs import turns
from app.tenants.models import Project
from app.webhooks import service as webhooks
from app.webhooks.event_types import EventType

log = structlog.get_logger(__name__)

TURN: turns.Turn = Project.last_evaluation_at
OVER: dict[str, Any] = {"lease_owner": None, "lease_expires_at": None}
EVENTS: dict[str, EventType] = {
    "completed": "eval.run.succeeded",
    "failed": "eval.run.failed",
    "canceled": "eval.run.canceled",
}
"""What endpoints of webhooks are told of a run that is over, by its status."""


class LeaseLost(Exception):
    """The run is not this worker's any more, which must stop and write nothing."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(f"Attempt {claim.attempt} of eval run {claim.run_id} lost its lease.")


@dataclass(frozen=True)
class Claim:
    """The right to work on a run. `attempt` is the fence."""

    run_id: str
    attempt: int
    project_id: str


def claim_next(db: Session, owner: str, lease: timedelta, passed_over: Sequence[str] = ()) -> Claim | None:
    """Takes a run that is queued, or whose worker went silent: the oldest of the project whose turn it is.

    No run of the projects `passed_over` is taken.
    """
    chosen = turns.take_next(db, EvalRun, _free(passed_over), TURN)
    if chosen is None:
        return None
    values = {
        "status": "in_progress",
        "attempt": EvalRun.attempt + 1,
        "lease_owner": owner,
        "lease_expires_at": func.now() + lease,
        "started_at": func.coalesce(EvalRun.started_at, func.now()),
        "progress_at": func.now(),
        "fruitless_attempts": EvalRun.fruitless_attempts + 1,
    }
    taken = update(EvalRun).where(EvalRun.id == chosen).values(values).returning(EvalRun)
    row = db.scalars(taken, execution_options={"populate_existing": True}).one()
    return Claim(row.id, row.attempt, row.project_id)


def place_in_queue(db: Session, passed_over: Sequence[str] = ()) -> turns.Place | None:
    """Returns where the run waits that a worker would take next."""
    return turns.first_place(db, EvalRun, _free(passed_over), TURN)


def has_work(db: Session) -> bool:
    """Tells whether a worker would find a run."""
    return db.scalar(select(EvalRun.id).where(_free(())).limit(1)) is not None


def held(db: Session, claim: Claim, **values: Any) -> EvalRun:
    """Writes to a run that this claim holds, and locks its row. Raises `LeaseLost`."""
    mine = (EvalRun.id == claim.run_id, EvalRun.status == "in_progress", EvalRun.attempt == claim.attempt)
    statement = update(EvalRun).where(*mine).values(values or {"attempt": claim.attempt})
    fresh = {"synchronize_session": False, "populate_existing": True}
    row = db.scalars(statement.returning(EvalRun), execution_options=fresh).one_or_none()
    if row is None:
        raise LeaseLost(claim)
    return row


def renew(db: Session, claim: Claim, lease: timedelta) -> float:
    """Keeps the run for another lease. Returns how many seconds ago it last made progress.

    Raises `LeaseLost`, after a cancel too.
    """
    run = held(db, claim, lease_expires_at=func.now() + lease)
    return float(db.scalar(select(func.extract("epoch", func.clock_timestamp() - run.progress_at))) or 0.0)


def made_progress(db: Session, claim: Claim, **values: Any) -> EvalRun:
    """Writes what the run has come to, and notes that this attempt was not in vain. Raises `LeaseLost`."""
    return held(db, claim, progress_at=func.now(), fruitless_attempts=0, **values)


def release(db: Session, claim: Claim) -> None:
    """Gives a run back; the attempt does not count as one that ended early. Raises `LeaseLost`."""
    fewer = func.greatest(EvalRun.fruitless_attempts - 1, 0)
    held(db, claim, status="queued", fruitless_attempts=fewer, **OVER)
    queue.wake_evaluator(db)


def requeue_crashed(db: Session, claim: Claim) -> None:
    """Lets a run be tried again whose process ended by itself. Raises `LeaseLost`."""
    held(db, claim, status="queued", **OVER)
    queue.wake_evaluator(db)


def is_worn_out(db: Session, claim: Claim, most: int) -> bool:
    """Tells whether this attempt, if it ends now, was the last one that is made. Raises `LeaseLost`."""
    return held(db, claim).fruitless_attempts >= most


def was_worn_out(db: Session, claim: Claim, most: int) -> bool:
    """Tells whether the attempts before this one, whose workers went silent, were all that are made."""
    return held(db, claim).fruitless_attempts > most


def finish_completed(db: Session, claim: Claim) -> None:
    """Ends a run whose items were all judged. Raises `LeaseLost`."""
    _finish(db, claim, "completed")


def finish_failed(db: Session, claim: Claim, code: str, message: str) -> None:
    """Ends a run that could not be carried out. What was judged stays. Raises `LeaseLost`."""
    _finish(db, claim, "failed", error={"code": code, "message": message})


def tell(db: Session, run: EvalRun) -> None:
    """Has webhooks tell that a run is over, once this transaction commits."""
    webhooks.emit(db, run.project_id, EVENTS[run.status], run.id)


def _finish(db: Session, claim: Claim, status: str, **values: Any) -> None:
    run = held(db, claim, status=status, finished_at=func.now(), **OVER, **values)
    tell(db, run)
    log.info("eval_run_over", run_id=claim.run_id, attempt=claim.attempt, status=status)


def _free(passed_over: Sequence[str]) -> ColumnElement[bool]:
    silent = and_(EvalRun.status == "in_progress", EvalRun.lease_expires_at < func.now())
    return and_(or_(EvalRun.status == "queued", silent), EvalRun.project_id.not_in(passed_over))
