"""Owns work on a worker's side: claim, lease, fence. It is the scheme of jobs (runs.py), for any table that
has its columns.

A conditional UPDATE raises `attempt`, every later write names the attempt, and what finds no row raises
`LeaseLost`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from app.jobs import turns

Row = TypeVar("Row")

UNOWNED: dict[str, Any] = {"lease_owner": None, "lease_expires_at": None}


@dataclass(frozen=True)
class Claim:
    """The right to work on a row. `attempt` is the fence."""

    row_id: str
    attempt: int
    project_id: str


class LeaseLost(Exception):
    """The row is not this worker's any more, which must stop and write nothing."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(f"Attempt {claim.attempt} of {claim.row_id} lost its lease.")


@dataclass(frozen=True)
class Leases(Generic[Row]):
    """The leases of one table.

    Attributes:
        table: it has `id`, `project_id`, `status`, `created_at`, `started_at`, `attempt`, the columns of a
            lease, `progress_at` and `fruitless_attempts`.
        running: the status of a row that somebody works on.
        turn: what projects take turns by.
        wake: has a worker look for such work, once the transaction has committed.
    """

    table: Any
    running: str
    turn: turns.Turn
    wake: Callable[[Session], None]

    def claim_next(
        self, db: Session, owner: str, lease: timedelta, passed_over: Sequence[str] = ()
    ) -> Claim | None:
        """Takes a row that is queued, or whose worker went silent: the oldest of the project whose turn it
        is.

        No row of the projects `passed_over` is taken.
        """
        table = self.table
        chosen = turns.take_next(db, table, self._free(passed_over), self.turn)
        if chosen is None:
            return None
        values = {
            "status": self.running,
            "attempt": table.attempt + 1,
            "lease_owner": owner,
            "lease_expires_at": func.now() + lease,
            "started_at": func.coalesce(table.started_at, func.now()),
            "progress_at": func.now(),
            "fruitless_attempts": table.fruitless_attempts + 1,
        }
        taken = update(table).where(table.id == chosen).values(values).returning(table)
        row = db.scalars(taken, execution_options={"populate_existing": True}).one()
        return Claim(row.id, row.attempt, row.project_id)

    def place_in_queue(self, db: Session, passed_over: Sequence[str] = ()) -> turns.Place | None:
        """Returns where the row waits that a worker would take next."""
        return turns.first_place(db, self.table, self._free(passed_over), self.turn)

    def has_work(self, db: Session) -> bool:
        """Tells whether a worker would find a row."""
        return db.scalar(select(self.table.id).where(self._free(())).limit(1)) is not None

    def held(self, db: Session, claim: Claim, **values: Any) -> Row:
        """Writes to a row that this claim holds, and locks it. Raises `LeaseLost`."""
        table = self.table
        mine = (table.id == claim.row_id, table.status == self.running, table.attempt == claim.attempt)
        statement = update(table).where(*mine).values(values or {"attempt": claim.attempt})
        fresh = {"synchronize_session": False, "populate_existing": True}
        row: Row | None = db.scalars(statement.returning(table), execution_options=fresh).one_or_none()
        if row is None:
            raise LeaseLost(claim)
        return row

    def renew(self, db: Session, claim: Claim, lease: timedelta) -> float:
        """Keeps the row for another lease. Returns how many seconds ago it last made progress.

        Raises `LeaseLost`, after a cancel too.
        """
        row: Any = self.held(db, claim, lease_expires_at=func.now() + lease)
        since = func.extract("epoch", func.clock_timestamp() - row.progress_at)
        return float(db.scalar(select(since)) or 0.0)

    def made_progress(self, db: Session, claim: Claim, **values: Any) -> Row:
        """Writes what the work has come to, and notes that this attempt was not in vain. Raises
        `LeaseLost`."""
        return self.held(db, claim, progress_at=func.now(), fruitless_attempts=0, **values)

    def release(self, db: Session, claim: Claim) -> None:
        """Gives a row back; the attempt does not count as one that ended early. Raises `LeaseLost`."""
        fewer = func.greatest(self.table.fruitless_attempts - 1, 0)
        self.held(db, claim, status="queued", fruitless_attempts=fewer, **UNOWNED)
        self.wake(db)

    def requeue_crashed(self, db: Session, claim: Claim) -> None:
        """Lets work be tried again whose process ended by itself. Raises `LeaseLost`."""
        self.held(db, claim, status="queued", **UNOWNED)
        self.wake(db)

    def is_worn_out(self, db: Session, claim: Claim, most: int) -> bool:
        """Tells whether this attempt, if it ends now, was the last one that is made. Raises `LeaseLost`."""
        row: Any = self.held(db, claim)
        return bool(row.fruitless_attempts >= most)

    def was_worn_out(self, db: Session, claim: Claim, most: int) -> bool:
        """Tells whether the attempts before this one, whose workers went silent, were all that are made."""
        row: Any = self.held(db, claim)
        return bool(row.fruitless_attempts > most)

    def finish(self, db: Session, claim: Claim, status: str, **values: Any) -> Row:
        """Ends the work. Raises `LeaseLost`."""
        return self.held(db, claim, status=status, finished_at=func.now(), **UNOWNED, **values)

    def _free(self, passed_over: Sequence[str]) -> ColumnElement[bool]:
        table = self.table
        silent = and_(table.status == self.running, table.lease_expires_at < func.now())
        return and_(or_(table.status == "queued", silent), table.project_id.not_in(passed_over))
