"""What an error of a training says of the machine around it."""

from __future__ import annotations

from sqlalchemy.exc import OperationalError

from app.disk import is_full
from workers.jobs.attempt import Exit


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
