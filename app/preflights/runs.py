"""The leases of preflights: of the part that reads files, and of that whose samples are costly.

What workers of each queue do of a preflight is told by its `stage`; it takes turns with what waits there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, func
from sqlalchemy.orm import Session

from app import queue
from app.jobs.capacity import Capacity
from app.jobs.leases import OVER, Claim, Leases
from app.preflights.models import Preflight
from app.tenants.models import Project

FILES = Leases(Preflight, Project.last_validation_at, queue.wake_validator, only=Preflight.stage == "files")
SAMPLES = Leases(Preflight, Project.last_training_at, queue.wake_trainer, only=Preflight.stage == "samples")


def fits(capacity: Capacity) -> list[ColumnElement[bool]]:
    """Returns the conditions of preflights whose samples a machine can draw: one GPU is enough for any."""
    if capacity.gpus:
        return []
    return [func.coalesce(Preflight.resources["gpus"].as_integer(), 0) == 0]


def has_work(db: Session, kind: queue.Queue, capacity: Capacity) -> bool:
    """Tells whether a worker of that queue on this machine would find a preflight."""
    return FILES.has_work(db) if kind == "validate" else SAMPLES.has_work(db, *fits(capacity))


def hand_over(db: Session, claim: Claim, report: Mapping[str, Any]) -> None:
    """Queues a preflight again, for its samples at a worker that trains. Raises `LeaseLost`."""
    FILES.held(db, claim, status="queued", stage="samples", report=dict(report), fruitless_attempts=0, **OVER)
    SAMPLES.wake(db)
