"""Leases of rows that workers work on: the scheme of jobs (runs.py) for any table that has its columns.

A conditional UPDATE raises `attempt`, every later write names the attempt, and what finds no row raises
`LeaseLost`. A table has `status`, `attempt`, `lease_owner`, `lease_expires_at`, `started_at`, `finished_at`,
`progress`, `error` and `fruitless_attempts`, as app/preflights/models.py and app/datasets/models.py have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from app.jobs import turns

Table = TypeVar("Table")

ACTIVE = ("queued", "running")
"""Statuses of what is not over."""
TERMINAL = ("succeeded", "failed", "cancelled")
OVER = {"lease_owner": None, "lease_expires_at": None, "progress": None}


class LeaseLost(Exception):
    """The row is not this worker's any more, which must stop and write nothing."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(f"Attempt {claim.attempt} of {claim.row_id} lost its lease.")


@dataclass(frozen=True)
class Claim:
    """The right to work on a row. `attempt` is the fence."""

    row_id: str
    attempt: int
    project_id: str


class Leases(Generic[Table]):
    """The leases of one table, at workers where its projects take `turn`."""

    def __init__(
        self,
        table: type[Table],
        turn: turns.Turn,
        wake: Callable[[Session], None],
        *,
        only: ColumnElement[bool] | None = None,
    ) -> None:
        """`wake` lets a worker look for rows once a transaction has committed; `only` says which rows these
        are."""
        self._table: Any = table
        self._turn = turn
        self._only = [] if only is None else [only]
        self.wake = wake

    def claim_next(
        self,
        db: Session,
        owner: str,
        lease: timedelta,
        passed_over: Sequence[str] = (),
        *also: ColumnElement[bool],
    ) -> Claim | None:
        """Takes a row that is queued, or whose worker went silent: the oldest of the project whose turn it
        is, of none of the projects `passed_over`, and one that fulfils `also`."""
        table = self._table
        chosen = turns.take_next(db, table, self._free(passed_over, also), self._turn)
        if chosen is None:
            return None
        values = {
            "status": "running",
            "attempt": table.attempt + 1,
            "lease_owner": owner,
            "lease_expires_at": func.now() + lease,
            "started_at": func.coalesce(table.started_at, func.now()),
            "fruitless_attempts": table.fruitless_attempts + 1,
        }
        taken = update(table).where(table.id == chosen).values(values)
        row = db.scalars(taken.returning(table), execution_options={"populate_existing": True}).one()
        return Claim(row.id, row.attempt, row.project_id)

    def place(
        self, db: Session, passed_over: Sequence[str] = (), *also: ColumnElement[bool]
    ) -> turns.Place | None:
        """Returns where the row waits that a worker would take next; None without any."""
        return turns.first_place(db, self._table, self._free(passed_over, also), self._turn)

    def has_work(self, db: Session, *also: ColumnElement[bool]) -> bool:
        """Tells whether a worker would find a row."""
        return db.scalar(select(self._table.id).where(self._free((), also)).limit(1)) is not None

    def held(self, db: Session, claim: Claim, **values: Any) -> Table:
        """Writes to a row that this claim holds, and locks it. Raises `LeaseLost`."""
        table = self._table
        mine = (table.id == claim.row_id, table.status == "running", table.attempt == claim.attempt)
        statement = update(table).where(*mine).values(values or {"attempt": claim.attempt})
        fresh = {"synchronize_session": False, "populate_existing": True}
        row: Table | None = db.scalars(statement.returning(table), execution_options=fresh).one_or_none()
        if row is None:
            raise LeaseLost(claim)
        return row

    def renew(self, db: Session, claim: Claim, lease: timedelta) -> None:
        """Keeps the row for another lease. Raises `LeaseLost`, after a cancel too."""
        self.held(db, claim, lease_expires_at=func.now() + lease)

    def enter(self, db: Session, claim: Claim, phase: str, done: int = 0, total: int = 0) -> None:
        """Notes what is being done. Raises `LeaseLost`."""
        self.held(db, claim, progress={"phase": phase, "done": done, "total": total})

    def release(self, db: Session, claim: Claim) -> None:
        """Gives a row back; the attempt does not count as one that ended early. Raises `LeaseLost`."""
        fewer = func.greatest(self._table.fruitless_attempts - 1, 0)
        self.held(db, claim, status="queued", fruitless_attempts=fewer, **OVER)
        self.wake(db)

    def requeue_crashed(self, db: Session, claim: Claim) -> None:
        """Lets a row be tried again whose process ended by itself. Raises `LeaseLost`."""
        self.held(db, claim, status="queued", **OVER)
        self.wake(db)

    def attempts(self, db: Session, claim: Claim) -> int:
        """Returns how many attempts in a row have ended early if this one does. Raises `LeaseLost`."""
        row: Any = self.held(db, claim)
        return int(row.fruitless_attempts)

    def finish_succeeded(self, db: Session, claim: Claim, **values: Any) -> None:
        """Ends a row with what became of it. Raises `LeaseLost`."""
        self.held(db, claim, status="succeeded", finished_at=func.now(), **OVER, **values)

    def finish_failed(
        self, db: Session, claim: Claim, code: str, message: str, param: str | None = None
    ) -> None:
        """Ends a row that could not be carried out. Raises `LeaseLost`."""
        error = {"code": code, "message": message, "param": param}
        self.held(db, claim, status="failed", error=error, finished_at=func.now(), **OVER)

    def cancel(self, db: Session, which: ColumnElement[bool]) -> bool:
        """Cancels rows that are not over; a worker that is at one sees that within a second.

        Tells whether there were any.
        """
        table = self._table
        over = {"status": "cancelled", "finished_at": func.now(), **OVER}
        statement = update(table).where(which, table.status.in_(ACTIVE)).values(over)
        return bool(db.scalars(statement.returning(table.id)).all())

    def _free(self, passed_over: Sequence[str], also: Sequence[ColumnElement[bool]]) -> ColumnElement[bool]:
        table = self._table
        silent = and_(table.status == "running", table.lease_expires_at < func.now())
        is_free = or_(table.status == "queued", silent)
        return and_(is_free, table.project_id.not_in(passed_over), *self._only, *also)
