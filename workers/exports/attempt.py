"""One attempt at an export as its worker sees it: claim, a child process, its lease, its end.

The child (make.py) stores the files and writes its own outcome under the fence. This side settles what a
child cannot: a limit, a crash, a stopping worker.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.disk import scratch_folder
from app.exports import runs
from app.exports.runs import Claim, LeaseLost
from app.jobs import turns
from app.settings import get_settings
from workers.jobs import children
from workers.jobs.faults import Exit
from workers.jobs.fork_server import OUT_OF_MEMORY
from workers.jobs.job_data import SCRATCH
from workers.jobs.validators import End, Work, watch_to_its_end

log = structlog.get_logger(__name__)

MAKE = "workers.exports.make:make_claimed"


class Exports:
    """The exports that wait, among the validations of jobs."""

    def place(self, db: Session, passed_over: Sequence[str]) -> turns.Place | None:
        return runs.place_in_queue(db, passed_over)

    def claim(self, db: Session, owner: str, passed_over: Sequence[str]) -> Work | None:
        claim = runs.claim_next(db, owner, get_settings().lease, passed_over)
        return Work(claim.project_id, partial(carry_out, claim)) if claim else None


def carry_out(claim: Claim, stopping: threading.Event) -> None:
    """Has a claimed export made, and settles what the child leaves open."""
    log.info("export_started", export_id=claim.export_id, attempt=claim.attempt)
    try:
        if not _was_worn_out(claim):
            with scratch_folder(SCRATCH) as scratch:
                end, code = _in_child(claim, stopping, str(scratch))
            _settle(claim, end, code)
    except LeaseLost:  # the checkpoint is gone, or another worker has it
        log.info("export_lost", export_id=claim.export_id)
    except SQLAlchemyError:
        log.exception("export_broke_off", export_id=claim.export_id)
        stopping.wait(1)  # the lease runs out, and somebody tries again


def _in_child(claim: Claim, stopping: threading.Event, scratch: str) -> tuple[End, int]:
    settings = get_settings()
    child = children.start(MAKE, vars(claim), settings.export_memory_bytes, scratch)

    def renew() -> None:
        with unit_of_work() as db:
            runs.renew(db, claim, settings.lease)

    return watch_to_its_end(child, renew, LeaseLost, stopping, settings.export_limit)


def _was_worn_out(claim: Claim) -> bool:
    """Fails an export whose workers were lost too often, whoever had it."""
    with unit_of_work() as db:
        if runs.held(db, claim).fruitless_attempts <= get_settings().max_fruitless_attempts:
            return False
        message = "The workers that made it were lost again and again."
        runs.finish_failed(db, claim, "server_error", message)
    return True


def _settle(claim: Claim, end: End, code: int) -> None:
    """Writes what the child could not. Raises `LeaseLost` if the export is not ours any more."""
    log.info("export_over", export_id=claim.export_id, end=end.value, code=code)
    settings = get_settings()
    if end is End.WORKER_STOPS:
        with unit_of_work() as db:
            runs.give_back(db, claim, is_fruitless=False)
    elif end is End.TOO_LONG:
        _fail(claim, "export_too_long", f"It took longer than {settings.export_limit} and was stopped.")
    elif end is End.LEASE_LOST or code in (Exit.OUTCOME_WRITTEN, Exit.LEASE_LOST, Exit.DATABASE_AWAY):
        return  # of the last, the lease runs out, and somebody tries again
    elif code in (OUT_OF_MEMORY, -signal.SIGABRT):  # a library in Rust or C++ aborts where Python raises
        mib = settings.export_memory_bytes // 2**20
        _fail(claim, "export_out_of_memory", f"It needed more than the {mib} MiB of memory that it may take.")
    else:
        _try_again(claim, code)


def _fail(claim: Claim, code: str, message: str) -> None:
    """Fails an export that reached a limit: another attempt would reach it too."""
    with unit_of_work() as db:
        runs.finish_failed(db, claim, code, message)


def _try_again(claim: Claim, code: int) -> None:
    """Gives an export back whose child crashed, or fails it if that was so too often."""
    reason = f"it exited with code {code}"
    if code < 0:
        reason = f"it was ended by {signal.Signals(-code).name}, perhaps for lack of memory"
    with unit_of_work() as db:
        if runs.held(db, claim).fruitless_attempts >= get_settings().max_fruitless_attempts:
            message = f"It ended early in each of its attempts. Of the last one: {reason}."
            runs.finish_failed(db, claim, "server_error", message)
        else:
            runs.give_back(db, claim, is_fruitless=True)
