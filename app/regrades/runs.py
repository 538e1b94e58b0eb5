"""The worker's side of regrades: whose they are, and how they end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from sqlalchemy.orm import Session

from app import queue
from app.jobs.leases import Claim, Leases
from app.regrades.models import Regrade
from app.tenants.models import Project

log = structlog.get_logger(__name__)

LEASES: Leases[Regrade] = Leases(Regrade, "running", Project.last_evaluation_at, queue.wake_evaluator)


def finish_succeeded(db: Session, claim: Claim, comparison: Mapping[str, Any]) -> None:
    """Ends a regrade whose completions are all graded. Raises `LeaseLost`."""
    LEASES.finish(db, claim, "succeeded", comparison=dict(comparison))
    log.info("regrade_succeeded", regrade_id=claim.row_id, attempt=claim.attempt)


def finish_failed(db: Session, claim: Claim, code: str, message: str) -> None:
    """Ends a regrade that could not be carried out. What was graded stays. Raises `LeaseLost`."""
    LEASES.finish(db, claim, "failed", error={"code": code, "message": message, "param": None})
    log.info("regrade_failed", regrade_id=claim.row_id, attempt=claim.attempt, code=code)
