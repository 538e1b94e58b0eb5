"""One attempt at a data set as its worker sees it: claim, a child process, its lease, its end.

The child (make.py) writes its own outcome under the fence. This side settles what a child cannot: a limit, a
crash, a cancel, a stopping worker.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.datasets.runs import LEASES
from app.db import unit_of_work
from app.disk import scratch_folder
from app.jobs import turns
from app.jobs.leases import Claim, LeaseLost
from app.settings import get_settings
from workers.jobs import children
from workers.jobs.attempt import Exit
from workers.jobs.fork_server import OUT_OF_MEMORY
from workers.jobs.job_data import SCRATCH
from workers.jobs.validators import End, Work, watch_to_its_end

log = structlog.get_logger(__name__)

MAKE = "workers.datasets.make:make_claimed"


class Datasets:
    """The data sets that wait to be made."""

    def place(self, db: Session, passed_over: Sequence[str]) -> turns.Place | None:
        return LEASES.place(db, passed_over)

    def claim(self, db: Session, owner: str, passed_over: Sequence[str]) -> Work | None:
        claim = LEASES.claim_next(db, owner, get_settings().lease, passed_over)
        return Work(claim.project_id, partial(carry_out, claim)) if claim else None


def carry_out(claim: Claim, stopping: threading.Event) -> None:
    """Has a claimed data set made, and settles what the child leaves open."""
    log.info("dataset_started", dataset_id=claim.row_id, attempt=claim.attempt)
    try:
        if not _was_worn_out(claim):
            with scratch_folder(SCRATCH) as scratch:
                end, code = _in_child(claim, stopping, str(scratch))
            _settle(claim, end, code)
    except LeaseLost:  # cancelled meanwhile, or another worker has it
        log.info("dataset_lost", dataset_id=claim.row_id)
    except SQLAlchemyError:
        log.exception("dataset_broke_off", dataset_id=claim.row_id)
        stopping.wait(1)  # the lease runs out, and somebody tries again


def _in_child(claim: Claim, stopping: threading.Event, scratch: str) -> tuple[End, int]:
    settings = get_settings()
    child = children.start(MAKE, vars(claim), settings.validation_memory_bytes, scratch)

    def renew() -> None:
        with unit_of_work() as db:
            LEASES.renew(db, claim, settings.lease)

    return watch_to_its_end(child, renew, LeaseLost, stopping)


def _was_worn_out(claim: Claim) -> bool:
    """Fails a data set whose workers were lost too often, whoever had it."""
    with unit_of_work() as db:
        if LEASES.attempts(db, claim) <= get_settings().max_fruitless_attempts:
            return False
        message = "The workers that made the data set were lost again and again."
        LEASES.finish_failed(db, claim, "server_error", message)
    return True


def _settle(claim: Claim, end: End, code: int) -> None:
    """Writes what the child could not. Raises `LeaseLost` if the data set is not ours any more."""
    settings = get_settings()
    log.info("dataset_over", dataset_id=claim.row_id, end=end.value, code=code)
    if end is End.WORKER_STOPS:
        with unit_of_work() as db:
            LEASES.release(db, claim)
    elif end is End.TOO_LONG:
        _fail(claim, "dataset_too_long", f"took longer than {settings.validation_limit} and was stopped")
    elif end is End.LEASE_LOST or code in (Exit.OUTCOME_WRITTEN, Exit.LEASE_LOST, Exit.DATABASE_AWAY):
        return  # of the last, the lease runs out, and somebody tries again
    elif code in (OUT_OF_MEMORY, -signal.SIGABRT):  # a library in Rust or C++ aborts where Python raises
        mib = settings.validation_memory_bytes // 2**20
        _fail(claim, "dataset_out_of_memory", f"needed more than the {mib} MiB of memory that it may take")
    else:
        _try_again(claim, code)


def _fail(claim: Claim, code: str, what: str) -> None:
    """Fails a data set that reached a limit: another attempt would reach it too."""
    with unit_of_work() as db:
        phase = (LEASES.held(db, claim).progress or {}).get("phase", "starting")
        message = f"Making the data set {what} (while {phase}). Narrow 'filter', or lower 'max_rows'."
        LEASES.finish_failed(db, claim, code, message)


def _try_again(claim: Claim, code: int) -> None:
    """Gives a data set back whose child crashed, or fails it if that was so too often."""
    reason = f"it exited with code {code}"
    if code < 0:
        reason = f"it was ended by {signal.Signals(-code).name}, perhaps for lack of memory"
    with unit_of_work() as db:
        if LEASES.attempts(db, claim) >= get_settings().max_fruitless_attempts:
            message = f"Making the data set ended early in each attempt. Of the last one: {reason}."
            LEASES.finish_failed(db, claim, "server_error", message)
        else:
            LEASES.requeue_crashed(db, claim)
