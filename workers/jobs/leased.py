"""Leased work in a process of its own, as its worker sees it: the process, the lease, the end.

The process writes its own outcome under the fence. This side settles what that cannot: a crash, a hang, a
cancel, a stopping worker.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import process
from app.db import unit_of_work
from app.jobs import turns
from app.jobs.leases import Claim, LeaseLost, Leases
from app.settings import get_settings
from workers.jobs.attempt import LOOK_SECONDS
from workers.jobs.faults import Exit
from workers.jobs.validators import LAST_STEPS_SECONDS, POLL_SECONDS, Work

log = structlog.get_logger(__name__)

Fail = Callable[[Session, Claim, str, str], None]


class End(Enum):
    """Why watching a process ended."""

    EXITED = "exited"
    WORKER_STOPS = "worker stops"
    HANGS = "hangs"
    LEASE_LOST = "lease lost"


@dataclass(frozen=True)
class LeasedWork:
    """One kind of work.

    Attributes:
        what: what it is called, such as "regrade".
        module: the module that its process runs, with the row's id, `--attempt` and `--project`.
        leases: whose it is.
        fail: ends it with a code and a message.
    """

    what: str
    module: str
    leases: Leases[Any]
    fail: Fail

    def place(self, db: Session, passed_over: Sequence[str]) -> turns.Place | None:
        return self.leases.place_in_queue(db, passed_over)

    def claim(self, db: Session, owner: str, passed_over: Sequence[str]) -> Work | None:
        claim = self.leases.claim_next(db, owner, get_settings().lease, passed_over)
        return Work(claim.project_id, partial(self.carry_out, claim)) if claim else None

    def carry_out(self, claim: Claim, stopping: threading.Event) -> None:
        """Has claimed work carried out, and settles what its process leaves open."""
        log.info("leased_work_started", kind=self.what, row_id=claim.row_id, attempt=claim.attempt)
        try:
            if not self._was_worn_out(claim):
                child = self._start(claim)
                try:
                    end = self._watch(child, claim, stopping)
                finally:
                    process.kill_family(child)
                self._settle(claim, end, child.returncode)
        except LeaseLost:  # cancelled meanwhile, or another worker has it
            log.info("leased_work_lost", kind=self.what, row_id=claim.row_id)
        except SQLAlchemyError:
            log.exception("leased_work_broke_off", kind=self.what, row_id=claim.row_id)
            stopping.wait(1)  # the lease runs out, and somebody tries again

    def _start(self, claim: Claim) -> subprocess.Popen[bytes]:
        named = ["--attempt", str(claim.attempt), "--project", claim.project_id]
        command = [sys.executable, "-m", self.module, claim.row_id, *named]
        return process.spawn(command, on_parent_death=signal.SIGKILL, env=dict(os.environ))

    def _watch(self, child: subprocess.Popen[bytes], claim: Claim, stopping: threading.Event) -> End:
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
                    seconds = self.leases.renew(db, claim, settings.lease)
            except LeaseLost:  # by a cancel; or the process has just written its outcome and is about to end
                return End.EXITED if _exits_now(child) else End.LEASE_LOST
            except SQLAlchemyError as problem:  # the fence keeps us safe if this outlasts the lease
                log.warning("lease_not_renewed", problem=str(problem))
                continue
            if seconds > settings.phase_limit.total_seconds():
                return End.HANGS
        return End.EXITED

    def _was_worn_out(self, claim: Claim) -> bool:
        """Fails work whose workers were lost too often, whoever had it."""
        with unit_of_work() as db:
            if not self.leases.was_worn_out(db, claim, get_settings().max_fruitless_attempts):
                return False
            message = f"The workers that carried the {self.what} out were lost again and again."
            self.fail(db, claim, "server_error", message)
        return True

    def _settle(self, claim: Claim, end: End, code: int) -> None:
        """Writes what the process could not. Raises `LeaseLost` if the work is not ours any more."""
        log.info("leased_work_over", kind=self.what, row_id=claim.row_id, end=end.value, code=code)
        if end is End.WORKER_STOPS:
            with unit_of_work() as db:
                self.leases.release(db, claim)
        elif end is End.HANGS:
            self._try_again(claim, f"it made no progress for {get_settings().phase_limit}")
        elif end is End.EXITED and code not in (Exit.OUTCOME_WRITTEN, Exit.LEASE_LOST, Exit.DATABASE_AWAY):
            reason = f"it exited with code {code}"
            if code < 0:
                reason = f"it was ended by {signal.Signals(-code).name}, perhaps for lack of memory"
            self._try_again(claim, reason)

    def _try_again(self, claim: Claim, reason: str) -> None:
        """Gives work back whose process ended early, or fails it if that was so too often."""
        with unit_of_work() as db:
            if self.leases.is_worn_out(db, claim, get_settings().max_fruitless_attempts):
                message = f"The {self.what} ended early in each of its attempts. Of the last one: {reason}."
                self.fail(db, claim, "server_error", message)
            else:
                self.leases.requeue_crashed(db, claim)


def _exits_now(child: subprocess.Popen[bytes]) -> bool:
    try:
        child.wait(LAST_STEPS_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True
