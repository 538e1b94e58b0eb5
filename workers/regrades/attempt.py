"""Regrades as their worker sees them: claim, a process of its own for each, its lease, its end.

The process (run.py) writes its own outcome under the fence. This side settles what that cannot: a crash, a
hang, a cancel, a stopping worker.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.jobs import turns
from app.jobs.leases import Claim, LeaseLost
from app.regrades import runs
from app.regrades.runs import LEASES
from app.settings import get_settings
from workers.attended import End, run_to_its_end, why_to_try_again
from workers.jobs.validators import Work

log = structlog.get_logger(__name__)

MODULE = "workers.regrades.run"


class Regrades:
    """The regrades that wait."""

    def place(self, db: Session, passed_over: Sequence[str]) -> turns.Place | None:
        return LEASES.place(db, passed_over)

    def claim(self, db: Session, owner: str, passed_over: Sequence[str]) -> Work | None:
        claim = LEASES.claim_next(db, owner, get_settings().lease, passed_over)
        return Work(claim.project_id, partial(carry_out, claim)) if claim else None


def carry_out(claim: Claim, stopping: threading.Event) -> None:
    """Has a claimed regrade carried out, and settles what its process leaves open."""
    log.info("regrade_started", regrade_id=claim.row_id, attempt=claim.attempt)
    try:
        if not _was_worn_out(claim):
            command = [MODULE, claim.row_id, "--attempt", str(claim.attempt), "--project", claim.project_id]
            end, code = run_to_its_end(command, partial(_renew, claim), LeaseLost, stopping)
            _settle(claim, end, code)
    except LeaseLost:  # cancelled meanwhile, or another worker has it
        log.info("regrade_lost", regrade_id=claim.row_id)
    except SQLAlchemyError:
        log.exception("regrade_broke_off", regrade_id=claim.row_id)
        stopping.wait(1)  # the lease runs out, and somebody tries again


def _renew(claim: Claim) -> float:
    with unit_of_work() as db:
        return runs.renew(db, claim, get_settings().lease)


def _was_worn_out(claim: Claim) -> bool:
    """Fails a regrade whose workers were lost too often, whoever had it; else notes that it begins."""
    with unit_of_work() as db:
        runs.begin(db, claim)
        if LEASES.attempts(db, claim) <= get_settings().max_fruitless_attempts:
            return False
        message = "The workers that carried the regrade out were lost again and again."
        LEASES.finish_failed(db, claim, "server_error", message)
    return True


def _settle(claim: Claim, end: End, code: int) -> None:
    """Writes what the process could not. Raises `LeaseLost` if the regrade is not ours any more."""
    log.info("regrade_attempt_over", regrade_id=claim.row_id, end=end.value, code=code)
    if end is End.WORKER_STOPS:
        with unit_of_work() as db:
            LEASES.release(db, claim)
    elif reason := why_to_try_again(end, code):
        _try_again(claim, reason)


def _try_again(claim: Claim, reason: str) -> None:
    """Gives a regrade back whose process ended early, or fails it if that was so too often."""
    with unit_of_work() as db:
        if LEASES.attempts(db, claim) >= get_settings().max_fruitless_attempts:
            message = f"The regrade ended early in each of its attempts. Of the last one: {reason}."
            LEASES.finish_failed(db, claim, "server_error", message)
        else:
            LEASES.requeue_crashed(db, claim)
