"""The worker's side of regrades: whose they are, how far they are, and how they end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import queue
from app.jobs.leases import Claim, Leases
from app.regrades.models import Regrade
from app.tenants.models import Project

LEASES = Leases(Regrade, Project.last_evaluation_at, queue.wake_evaluator)


def begin(db: Session, claim: Claim) -> Regrade:
    """Notes that an attempt begins, from when on it is to make progress. Raises `LeaseLost`."""
    return LEASES.held(db, claim, progress_at=func.now())


def made_progress(db: Session, claim: Claim, phase: str, **values: Any) -> Regrade:
    """Writes what the regrade has come to, and that this attempt was not in vain. Raises `LeaseLost`."""
    progress = {"progress": {"phase": phase}, "progress_at": func.now(), "fruitless_attempts": 0}
    return LEASES.held(db, claim, **progress, **values)


def renew(db: Session, claim: Claim, lease: timedelta) -> float:
    """Keeps the regrade for another lease. Returns how many seconds ago it last made progress.

    Raises `LeaseLost`, after a cancel too.
    """
    LEASES.renew(db, claim, lease)
    since = func.extract("epoch", func.clock_timestamp() - Regrade.progress_at)
    return float(db.scalar(select(since).where(Regrade.id == claim.row_id)) or 0.0)
