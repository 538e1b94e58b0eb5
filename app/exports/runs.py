"""Owns exports on a worker's side: claim, lease, fence, and every move of an export's status.

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
from app.checkpoints.models import Checkpoint
from app.exports.models import Export
from app.jobs import turns
from app.tenants.models import Project

log = structlog.get_logger(__name__)

OVER = {"lease_owner": None, "lease_expires_at": None, "progress": None}


class LeaseLost(Exception):
    """The export is not this worker's any more, which must stop and write nothing."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(f"Attempt {claim.attempt} of export {claim.export_id} lost its lease.")


@dataclass(frozen=True)
class Claim:
    """The right to work on an export. `attempt` is the fence."""

    export_id: str
    attempt: int
    project_id: str


def claim_next(db: Session, owner: str, lease: timedelta, passed_over: Sequence[str] = ()) -> Claim | None:
    """Takes an export that is queued, or whose worker went silent, of none of the projects `passed_over`.

    It is the oldest of the project whose turn it is.
    """
    chosen = turns.take_next(db, Export, _free(passed_over), Project.last_validation_at)
    if chosen is None:
        return None
    values = {
        "status": "running",
        "attempt": Export.attempt + 1,
        "lease_owner": owner,
        "lease_expires_at": func.now() + lease,
        "started_at": func.coalesce(Export.started_at, func.now()),
        "fruitless_attempts": Export.fruitless_attempts + 1,
    }
    taken = update(Export).where(Export.id == chosen).values(values)
    row = db.scalars(taken.returning(Export), execution_options={"populate_existing": True}).one()
    return Claim(row.id, row.attempt, row.project_id)


def place_in_queue(db: Session, passed_over: Sequence[str] = ()) -> turns.Place | None:
    """Returns where the export waits that a worker would take next."""
    return turns.first_place(db, Export, _free(passed_over), Project.last_validation_at)


def has_work(db: Session, kind: queue.Queue) -> bool:
    """Tells whether a worker of that queue would find an export."""
    return kind == "validate" and db.scalar(select(Export.id).where(_free(())).limit(1)) is not None


def held(db: Session, claim: Claim, **values: Any) -> Export:
    """Writes to an export that this claim holds, and locks its row. Raises `LeaseLost`."""
    mine = Export.id == claim.export_id, Export.status == "running", Export.attempt == claim.attempt
    statement = update(Export).where(*mine).values(values or {"attempt": claim.attempt})
    fresh = {"synchronize_session": False, "populate_existing": True}
    row = db.scalars(statement.returning(Export), execution_options=fresh).one_or_none()
    if row is None:
        raise LeaseLost(claim)
    return row


def renew(db: Session, claim: Claim, lease: timedelta) -> None:
    """Keeps the export for another lease. Raises `LeaseLost`."""
    held(db, claim, lease_expires_at=func.now() + lease)


def give_back(db: Session, claim: Claim, *, is_fruitless: bool) -> None:
    """Lets an export be tried again; one that its worker put down does not count as ended early."""
    back = 0 if is_fruitless else 1
    tried = func.greatest(Export.fruitless_attempts - back, 0)
    held(db, claim, status="queued", fruitless_attempts=tried, **OVER)
    queue.wake_validator(db)


def finish_ready(db: Session, claim: Claim, storage_key: str, manifest: Mapping[str, Any]) -> None:
    """Ends an export whose files are stored. Raises `LeaseLost`, also for a checkpoint that was dropped."""
    row = held(db, claim)
    checkpoint = db.get(Checkpoint, row.checkpoint_id, with_for_update={"key_share": True})
    if checkpoint is None or checkpoint.storage_key is None:
        raise LeaseLost(claim)
    done = {"status": "ready", "storage_key": storage_key, "manifest": dict(manifest), "error": None}
    held(db, claim, **done, finished_at=func.now(), fruitless_attempts=0, **OVER)
    log.info("export_ready", export_id=claim.export_id, attempt=claim.attempt)


def finish_failed(db: Session, claim: Claim, code: str, message: str) -> None:
    """Ends an export that cannot be made, or was refused. Raises `LeaseLost`."""
    error = {"code": code, "message": message}
    held(db, claim, status="failed", error=error, finished_at=func.now(), fruitless_attempts=0, **OVER)
    log.info("export_failed", export_id=claim.export_id, attempt=claim.attempt, code=code)


def _free(passed_over: Sequence[str]) -> ColumnElement[bool]:
    silent = and_(Export.status == "running", Export.lease_expires_at < func.now())
    return and_(or_(Export.status == "queued", silent), Export.project_id.not_in(passed_over))
