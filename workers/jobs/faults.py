"""How a child process ends on purpose, and what an error says of the machine around it."""

from __future__ import annotations

from enum import IntEnum

from sqlalchemy.exc import OperationalError

from app.disk import is_full


class Exit(IntEnum):
    """How a child ends on purpose. Anything else, signals included, is a crash."""

    OUTCOME_WRITTEN = 0
    CRASHED = 1
    DATABASE_AWAY = 75
    STOPPED = 76
    LEASE_LOST = 77
    PAUSED = 78
    NO_ROOM = 79


def exit_code_of(problem: Exception) -> Exit:
    """With what code a training process ends that met this error."""
    if is_absence(problem):
        return Exit.DATABASE_AWAY
    return Exit.NO_ROOM if is_full(problem) else Exit.CRASHED


def is_absence(problem: Exception) -> bool:
    """Whether the database is away (not to be reached, stopping, starting) rather than refusing us."""
    if not isinstance(problem, OperationalError):
        return False
    state = getattr(problem.orig, "sqlstate", None)
    return problem.connection_invalidated or state is None or state[:2] in ("08", "57")
