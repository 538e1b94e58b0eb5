"""One attempt at a leased row as its worker sees it: claim, a child process, its lease, its end.

The child writes its own outcome under the fence. This side settles what a child cannot: a limit, a crash, a
cancel, a stopping worker.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from sqlalchemy import ColumnElement
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.disk import scratch_folder
from app.jobs import turns
from app.jobs.leases import Claim, LeaseLost, Leases
from app.settings import get_settings
from workers.jobs import children
from workers.jobs.faults import Exit
from workers.jobs.fork_server import OUT_OF_MEMORY
from workers.jobs.job_data import SCRATCH
from workers.jobs.validators import End, Work, watch_to_its_end

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LeasedWork:
    """The work on the rows of some leases, which waits among the validations of jobs.

    Attributes:
        leases: those of the rows.
        function: what a child does with a claim, whose fields are its arguments: `module:name`.
        kind: the word for it in codes and logs.
        named: the work as messages tell it, such as "the preflight".
        advice: what to do where it reached a limit.
        further: what the child is told beside the claim.
    """

    leases: Leases[Any]
    function: str
    kind: str
    named: str
    advice: str = ""
    further: Mapping[str, Any] | None = None

    def place(self, db: Session, passed_over: Sequence[str]) -> turns.Place | None:
        """Returns where the row waits that is next; None without any."""
        return self.leases.place(db, passed_over)

    def claim(self, db: Session, owner: str, passed_over: Sequence[str]) -> Work | None:
        """Claims the next row, of none of the projects `passed_over`."""
        claim = self.leases.claim_next(db, owner, get_settings().lease, passed_over)
        return Work(claim.project_id, partial(self.carry_out, claim)) if claim else None

    def do_next(
        self,
        owner: str,
        stopping: threading.Event,
        *also: ColumnElement[bool],
        memory: int,
        environment: Mapping[str, str],
    ) -> bool:
        """Works on the next row that fulfils `also`, with so many bytes of memory; False if none waits.

        The child's environment is this process's with `environment` in it.
        """
        with unit_of_work() as db:
            claim = self.leases.claim_next(db, owner, get_settings().lease, (), *also)
        if claim is None:
            return False
        self.carry_out(claim, stopping, memory, environment)
        return True

    def carry_out(
        self,
        claim: Claim,
        stopping: threading.Event,
        memory: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Has claimed work done, and settles what the child leaves open."""
        log.info("work_started", kind=self.kind, row_id=claim.row_id, attempt=claim.attempt)
        try:
            if not self._was_worn_out(claim):
                with scratch_folder(SCRATCH) as scratch:
                    end, code = self._in_child(claim, stopping, str(scratch), memory, environment or {})
                self._settle(claim, end, code)
        except LeaseLost:  # cancelled meanwhile, or another worker has it
            log.info("work_lost", kind=self.kind, row_id=claim.row_id)
        except SQLAlchemyError:
            log.exception("work_broke_off", kind=self.kind, row_id=claim.row_id)
            stopping.wait(1)  # the lease runs out, and somebody tries again

    def _in_child(
        self,
        claim: Claim,
        stopping: threading.Event,
        scratch: str,
        memory: int | None,
        environment: Mapping[str, str],
    ) -> tuple[End, int]:
        settings = get_settings()
        arguments = {**vars(claim), **(self.further or {})}
        most = memory or settings.validation_memory_bytes
        child = children.start(self.function, arguments, most, scratch, environment)

        def renew() -> None:
            with unit_of_work() as db:
                self.leases.renew(db, claim, settings.lease)

        return watch_to_its_end(child, renew, LeaseLost, stopping, settings.validation_limit)

    def _was_worn_out(self, claim: Claim) -> bool:
        """Fails work whose workers were lost too often, whoever had it."""
        with unit_of_work() as db:
            if self.leases.attempts(db, claim) <= get_settings().max_fruitless_attempts:
                return False
            message = f"The workers that carried {self.named} out were lost again and again."
            self.leases.finish_failed(db, claim, "server_error", message)
        return True

    def _settle(self, claim: Claim, end: End, code: int) -> None:
        """Writes what the child could not. Raises `LeaseLost` if the row is not ours any more."""
        settings = get_settings()
        log.info("work_over", kind=self.kind, row_id=claim.row_id, end=end.value, code=code)
        if end is End.WORKER_STOPS:
            with unit_of_work() as db:
                self.leases.release(db, claim)
        elif end is End.TOO_LONG:
            what = f"took longer than {settings.validation_limit} and was stopped"
            self._fail(claim, "too_long", what)
        elif end is End.LEASE_LOST or code in (Exit.OUTCOME_WRITTEN, Exit.LEASE_LOST, Exit.DATABASE_AWAY):
            return  # of the last, the lease runs out, and somebody tries again
        elif code in (OUT_OF_MEMORY, -signal.SIGABRT):  # a library in Rust or C++ aborts where Python raises
            mib = settings.validation_memory_bytes // 2**20
            self._fail(claim, "out_of_memory", f"needed more than the {mib} MiB of memory that it may take")
        else:
            self._try_again(claim, code)

    def _fail(self, claim: Claim, code: str, what: str) -> None:
        """Fails work that reached a limit: another attempt would reach it too."""
        with unit_of_work() as db:
            phase = (self.leases.held(db, claim).progress or {}).get("phase", "reading")
            message = f"{self._named()} {what} (while {phase}).{self.advice and ' ' + self.advice}"
            self.leases.finish_failed(db, claim, f"{self.kind}_{code}", message)

    def _try_again(self, claim: Claim, code: int) -> None:
        """Gives work back whose child crashed, or fails it if that was so too often."""
        reason = f"it exited with code {code}"
        if code < 0:
            reason = f"it was ended by {signal.Signals(-code).name}, perhaps for lack of memory"
        with unit_of_work() as db:
            if self.leases.attempts(db, claim) >= get_settings().max_fruitless_attempts:
                message = f"{self._named()} ended early in each of its attempts. Of the last one: {reason}."
                self.leases.finish_failed(db, claim, "server_error", message)
            else:
                self.leases.requeue_crashed(db, claim)

    def _named(self) -> str:
        return self.named[0].upper() + self.named[1:]
