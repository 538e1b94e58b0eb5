"""Runs of evals as their worker sees them: claim, a process of its own for each, its lease, its end.

The process (run.py) writes its own outcome under the fence. This side settles what that cannot: a crash, a
run that hangs, a cancel, a stopping worker. Projects take turns, and a worker carries out several at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.evals import runs
from app.evals.runs import Claim, LeaseLost
from app.jobs import turns
from app.settings import get_settings
from workers.attended import End, run_to_its_end, why_to_try_again
from workers.jobs.validators import Work, work_through

log = structlog.get_logger(__name__)

MODULE = "workers.evals.run"


class EvalRuns:
    """The runs that wait."""

    def place(self, db: Session, passed_over: Sequence[str]) -> turns.Place | None:
        return runs.place_in_queue(db, passed_over)

    def claim(self, db: Session, owner: str, passed_over: Sequence[str]) -> Work | None:
        claim = runs.claim_next(db, owner, get_settings().lease, passed_over)
        return Work(claim.project_id, partial(carry_out, claim)) if claim else None


def evaluate_all(owner: str, stopping: threading.Event) -> int:
    """Carries out every run that waits, and those that come meanwhile. Returns how many that were."""
    return work_through((EvalRuns(),), owner, stopping, get_settings().evals_at_once)


def carry_out(claim: Claim, stopping: threading.Event) -> None:
    """Has a claimed run carried out, and settles what its process leaves open."""
    log.info("eval_run_started", run_id=claim.run_id, attempt=claim.attempt)
    try:
        if not _was_worn_out(claim):
            command = [MODULE, claim.run_id, "--attempt", str(claim.attempt), "--project", claim.project_id]
            end, code = run_to_its_end(command, partial(_renew, claim), LeaseLost, stopping)
            _settle(claim, end, code)
    except LeaseLost:  # cancelled meanwhile, or another worker has it
        log.info("eval_run_lost", run_id=claim.run_id)
    except SQLAlchemyError:
        log.exception("eval_run_broke_off", run_id=claim.run_id)
        stopping.wait(1)  # the lease runs out, and somebody tries again


def _renew(claim: Claim) -> float:
    with unit_of_work() as db:
        return runs.renew(db, claim, get_settings().lease)


def _was_worn_out(claim: Claim) -> bool:
    """Fails a run whose workers were lost too often, whoever had it."""
    with unit_of_work() as db:
        if not runs.was_worn_out(db, claim, get_settings().max_fruitless_attempts):
            return False
        message = "The workers that carried the run out were lost again and again."
        runs.finish_failed(db, claim, "server_error", message)
    return True


def _settle(claim: Claim, end: End, code: int) -> None:
    """Writes what the process could not. Raises `LeaseLost` if the run is not ours any more."""
    log.info("eval_attempt_over", run_id=claim.run_id, end=end.value, code=code)
    if end is End.WORKER_STOPS:
        with unit_of_work() as db:
            runs.release(db, claim)
    elif reason := why_to_try_again(end, code):
        _try_again(claim, reason)


def _try_again(claim: Claim, reason: str) -> None:
    """Gives a run back whose process ended early, or fails it if that was so too often."""
    with unit_of_work() as db:
        if runs.is_worn_out(db, claim, get_settings().max_fruitless_attempts):
            message = f"The run ended early in each of its attempts. Of the last one: {reason}."
            runs.finish_failed(db, claim, "server_error", message)
        else:
            runs.requeue_crashed(db, claim)
