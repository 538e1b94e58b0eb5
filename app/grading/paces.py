"""Keeps calls to a judge to so many a minute, whichever processes of the service make them.

A row for each judge says when it may be called next; whoever wants to call moves that on by one place, and
waits until its own.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import structlog
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, unit_of_work

log = structlog.get_logger(__name__)

SECONDS_PER_MINUTE = 60.0


class JudgePace(Base):
    """When a judge may be called next."""

    __tablename__ = "judge_paces"

    name: Mapped[str] = mapped_column(primary_key=True)
    next_at: Mapped[datetime]


class Pace:
    """Gives out the places of one judge. Safe to use from threads."""

    def __init__(self, name: str, calls_per_minute: float) -> None:
        """`name` is what the operator's settings call the judge."""
        self.calls_per_minute = calls_per_minute
        self._name = name
        self._spacing = timedelta(seconds=SECONDS_PER_MINUTE / calls_per_minute)
        self._lock = threading.Lock()  # of many threads one has a connection

    @property
    def per_second(self) -> float:
        """How many calls one process may make by itself, where the database cannot say more."""
        return self.calls_per_minute / SECONDS_PER_MINUTE

    def wait_seconds(self) -> float:
        """Takes the next free place, and returns the seconds until then.

        Without the database it is 0: then each process keeps to the limit by itself.
        """
        try:
            with self._lock, unit_of_work() as db:
                now = func.clock_timestamp()
                taken = insert(JudgePace).values(name=self._name, next_at=now + self._spacing)
                moved = func.greatest(JudgePace.next_at, now) + self._spacing
                taken = taken.on_conflict_do_update(index_elements=["name"], set_={"next_at": moved})
                left = func.extract("epoch", JudgePace.next_at - self._spacing - now)
                seconds = db.scalars(taken.returning(left)).one()
        except SQLAlchemyError as problem:
            log.warning("judge_pace_unknown", judge=self._name, problem=str(problem))
            return 0.0
        return max(0.0, float(seconds))
