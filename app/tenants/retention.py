"""Says how long the stored completions and responses of a project are kept."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.tenants.models import Project

LEAST, MOST = timedelta(minutes=1), timedelta(days=3650)
"""Bounds of what a project may be set to. Chosen, not measured."""


def kept_by(db: Session, project_id: str, otherwise: timedelta) -> timedelta:
    """Returns how long what a project stores now is kept: as it is set for it, `otherwise` if it is not.

    Nobody changes that until this transaction ends, so that nothing is stored under the rule of before.
    """
    db.execute(select(func.pg_advisory_xact_lock_shared(_lock(project_id))))
    own = db.scalars(select(Project.completions_kept).where(Project.id == project_id)).first()
    return own or otherwise


def hold(db: Session, project_id: str) -> None:
    """Waits until nobody stores anything in the project, and lets nobody until this transaction ends.

    The row of the project is not locked for this: workers pass over projects whose rows are.
    """
    db.execute(select(func.pg_advisory_xact_lock(_lock(project_id))))


def _lock(project_id: str) -> object:
    return func.hashtextextended(f"completions_kept {project_id}", 0)
