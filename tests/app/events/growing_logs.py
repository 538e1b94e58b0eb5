"""Logs of jobs that grow while tests read them."""

from __future__ import annotations

from app.db import unit_of_work
from app.events import service as events
from app.jobs import control


def tell(job_id: str, first: int, last: int) -> None:
    """Append events of these numbers, each in a transaction of its own."""
    for number in range(first, last + 1):
        with unit_of_work() as db:
            events.append(db, job_id, f"e{number}", f"event {number}")


def end(job_id: str) -> None:
    """Cancel the job; that is its last event."""
    with unit_of_work() as db:
        control.request_cancel(db, job_id)
