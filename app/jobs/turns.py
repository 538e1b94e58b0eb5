"""Says whose turn it is: projects take turns at the workers, for jobs, preflights and runs of evals alike.

A turn is noted at the project (`Project.last_validation_at`, `last_training_at`, `last_evaluation_at`); the
one whose turn was longest ago is next. docs/decisions/0023-projects-take-turns.md has the reasons.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import QueryableAttribute, Session

from app.tenants.models import Project

Turn = QueryableAttribute[Any]


class Place(NamedTuple):
    """Where in the queue a row waits. Places are compared as they are; the least is next."""

    has_had_a_turn: bool
    last_turn: datetime
    created_at: datetime


def first_place(db: Session, table: Any, free: ColumnElement[bool], turn: Turn) -> Place | None:
    """Returns the place of the row that is next among the free ones of a table; None without any."""
    query = select(turn, table.created_at).select_from(table).join(Project, Project.id == table.project_id)
    found = db.execute(query.where(free).order_by(*_order(table, turn)).limit(1)).first()
    if found is None:
        return None
    last_turn, created_at = found
    return Place(last_turn is not None, last_turn or created_at, created_at)


def first_row(db: Session, table: Any, free: ColumnElement[bool], turn: Turn) -> Any | None:
    """Returns the row that is next among the free ones of a table, without a lock on it; None without any."""
    query = select(table).join(Project, Project.id == table.project_id)
    return db.scalars(query.where(free).order_by(*_order(table, turn)).limit(1)).first()


def take_next(db: Session, table: Any, free: ColumnElement[bool], turn: Turn) -> str | None:
    """Locks the oldest free row of the project whose last turn was longest ago, and notes that turn.

    What another worker is just taking is passed over, its project too: that has its turn now. Only where
    nobody else's row is free another one of the same project is taken. Nothing here waits for a lock. Returns
    the row's id, or None if none is free.
    """
    waiting = select(table.id).join(Project, Project.id == table.project_id).where(free)
    ordered = waiting.order_by(*_order(table, turn)).limit(1)
    for locked in ((Project, table), (table,)):  # a passed-over row must not stay locked
        taken = db.scalars(ordered.with_for_update(of=locked, key_share=True, skip_locked=True)).first()
        if taken is not None:
            _note(db, table, taken, turn)
            return str(taken)
    return None


def _order(table: Any, turn: Turn) -> tuple[Any, ...]:
    return turn.asc().nulls_first(), table.created_at, table.id


def _note(db: Session, table: Any, row_id: str, turn: Turn) -> None:
    """Notes that the row's project has its turn now, unless another worker is just noting the same."""
    own = select(Project.id).where(
        Project.id == select(table.project_id).where(table.id == row_id).scalar_subquery()
    )
    unlocked = own.with_for_update(key_share=True, skip_locked=True)
    values = {turn.key: func.clock_timestamp()}  # later than that of a transaction which began before
    db.execute(update(Project).where(Project.id.in_(unlocked)).values(values))
