"""Regrades as their worker sees them: claim, a process of its own for each, its lease, its end.

The process (run.py) writes its own outcome under the fence. This side settles what that cannot: a crash, a
hang, a cancel, a stopping worker.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from enum import Enum
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import process
from app.db import unit_of_work
from app.jobs import turns
from app.jobs.leases import Claim, LeaseLost
from app.regrades import runs
from app.regrades.runs import LEASES
from app.settings import get_settings
from workers.jobs.attempt import LOOK_SECONDS
from workers.jobs.faults import Exit
from workers.jobs.validators import LAST_STEPS_SECONDS, POLL_SECONDS, Work

log = structlog.get_logger(__name__)


class End(Enum):
    """Why watching a process ended."""

    EXITED = "exited"
    WORKER_STOPS = "worker stops"
    HANGS = "hangs"
    LEASE_LOST = "lease lost"


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
            child = _start(claim)
            try:
                end = _watch(child, claim, stopping)
            finally:
                process.kill_family(child)
            _settle(claim, end, child.returncode)
    except LeaseLost:  # cancelled meanwhile, or another worker has it
        log.info("regrade_lost", regrade_id=claim.row_id)
    except SQLAlchemyError:
        log.exception("regrade_broke_off", regrade_id=claim.row_id)
        stopping.wait(1)  # the lease runs out, and somebody tries again


def _start(claim: Claim) -> subprocess.Popen[bytes]:
    named = ["--attempt", str(claim.attempt), "--project", claim.project_id]
    command = [sys.executable, "-m", "workers.regrades.run", claim.row_id, *named]
    return process.spawn(command, on_parent_death=signal.SIGKILL, env=dict(os.environ))


def _watch(child: subprocess.Popen[bytes], claim: Claim, stopping: threading.Event) -> End:
    """Keeps the lease while the process lives; returns when there is something to do."""
    settings = get_settings()
    next_look = 0.0
    while child.poll() is None:
        if stopping.wait(POLL_SECONDS):
            return End.WORKER_STOPS
        if time.monotonic() < next_look:
            continue
        next_look = time.monotonic() + min(LOOK_SECONDS, settings.lease.total_seconds() / 6)
        try:
            with unit_of_work() as db:
                seconds = runs.renew(db, claim, settings.lease)
        except LeaseLost:  # by a cancel; or the process has just written its outcome and is about to end
            return End.EXITED if _exits_now(child) else End.LEASE_LOST
        except SQLAlchemyError as problem:  # the fence keeps us safe if this outlasts the lease
            log.warning("lease_not_renewed", problem=str(problem))
            continue
        if seconds > settings.phase_limit.total_seconds():
            return End.HANGS
    return End.EXITED


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
    elif end is End.HANGS:
        _try_again(claim, f"it made no progress for {get_settings().phase_limit}")
    elif end is End.EXITED and code not in (Exit.OUTCOME_WRITTEN, Exit.LEASE_LOST, Exit.DATABASE_AWAY):
        reason = f"it exited with code {code}"
        if code < 0:
            reason = f"it was ended by {signal.Signals(-code).name}, perhaps for lack of memory"
        _try_again(claim, reason)


def _try_again(claim: Claim, reason: str) -> None:
    """Gives a regrade back whose process ended early, or fails it if that was so too often."""
    with unit_of_work() as db:
        if LEASES.attempts(db, claim) >= get_settings().max_fruitless_attempts:
            message = f"The regrade ended early in each of its attempts. Of the last one: {reason}."
            LEASES.finish_failed(db, claim, "server_error", message)
        else:
            LEASES.requeue_crashed(db, claim)


def _exits_now(child: subprocess.Popen[bytes]) -> bool:
    try:
        child.wait(LAST_STEPS_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True
