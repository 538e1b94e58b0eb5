"""One attempt at a preflight as its worker sees it: claim, a child process, its lease, its end.

The child (check.py) writes its own outcome under the fence. This side settles what a child cannot: a limit, a
crash, a cancel, a stopping worker. The files wait among the validations of jobs, costly samples among the
trainings; projects take turns over both.
"""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Sequence
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.disk import scratch_folder
from app.jobs import capacity, turns
from app.jobs import runs as job_runs
from app.jobs.capacity import Capacity
from app.preflights import runs
from app.preflights.runs import Claim, LeaseLost
from app.settings import get_settings
from workers.jobs import children
from workers.jobs.attempt import train_next as train_next_job
from workers.jobs.faults import Exit
from workers.jobs.fork_server import OUT_OF_MEMORY
from workers.jobs.job_data import SCRATCH
from workers.jobs.validators import NO_CAPACITY, End, Work, watch_to_its_end

log = structlog.get_logger(__name__)

CHECK = "workers.preflights.check:check_claimed"


class FileChecks:
    """The part of preflights that reads files, and samples where that costs little."""

    def place(self, db: Session, passed_over: Sequence[str]) -> turns.Place | None:
        return runs.place_in_queue(db, "validate", NO_CAPACITY, passed_over)

    def claim(self, db: Session, owner: str, passed_over: Sequence[str]) -> Work | None:
        claim = runs.claim_next(db, "validate", owner, get_settings().lease, NO_CAPACITY, passed_over)
        return Work(claim.project_id, partial(carry_out, claim)) if claim else None


def train_or_sample_next(owner: str, stopping: threading.Event) -> bool:
    """Works on the next job, or on the next preflight whose samples are costly; False if neither waits.

    A project's own preflights go before its jobs: they take minutes.
    """
    offered = capacity.of_this_machine(get_settings())
    with unit_of_work() as db:
        sample = runs.place_in_queue(db, "train", offered)
        job = job_runs.place_in_queue(db, "train", offered) if sample else None
    is_samples_turn = sample is not None and (job is None or sample[:2] <= job[:2])
    if is_samples_turn and sample_next(owner, stopping, offered):
        return True
    return train_next_job(owner, stopping) or sample_next(owner, stopping, offered)


def sample_next(owner: str, stopping: threading.Event, offered: Capacity) -> bool:
    """Claims the next preflight that waits for its samples, and works on it; False if none waits."""
    with unit_of_work() as db:
        claim = runs.claim_next(db, "train", owner, get_settings().lease, offered)
    if claim is None:
        return False
    carry_out(claim, stopping)
    return True


def carry_out(claim: Claim, stopping: threading.Event) -> None:
    """Has a claimed preflight carried out, and settles what the child leaves open."""
    log.info("preflight_started", preflight_id=claim.preflight_id, attempt=claim.attempt, stage=claim.stage)
    try:
        if not _was_worn_out(claim):
            with scratch_folder(SCRATCH) as scratch:
                end, code = _in_child(claim, stopping, str(scratch))
            _settle(claim, end, code)
    except LeaseLost:  # cancelled meanwhile, or another worker has it
        log.info("preflight_lost", preflight_id=claim.preflight_id)
    except SQLAlchemyError:
        log.exception("preflight_broke_off", preflight_id=claim.preflight_id)
        stopping.wait(1)  # the lease runs out, and somebody tries again


def _in_child(claim: Claim, stopping: threading.Event, scratch: str) -> tuple[End, int]:
    settings = get_settings()
    # A worker that trains gives a training all there is, and its samples too.
    memory = settings.validation_memory_bytes if claim.stage == "files" else resource.RLIM_INFINITY
    child = children.start(CHECK, vars(claim), memory, scratch)

    def renew() -> None:
        with unit_of_work() as db:
            runs.renew(db, claim, settings.lease)

    return watch_to_its_end(child, renew, LeaseLost, stopping)


def _was_worn_out(claim: Claim) -> bool:
    """Fails a preflight whose workers were lost too often, whoever had it."""
    with unit_of_work() as db:
        if not runs.was_worn_out(db, claim, get_settings().max_fruitless_attempts):
            return False
        message = "The workers that carried the preflight out were lost again and again."
        runs.finish_failed(db, claim, "server_error", message)
    return True


def _settle(claim: Claim, end: End, code: int) -> None:
    """Writes what the child could not. Raises `LeaseLost` if the preflight is not ours any more."""
    log.info("preflight_over", preflight_id=claim.preflight_id, end=end.value, code=code)
    if end is End.WORKER_STOPS:
        with unit_of_work() as db:
            runs.release(db, claim)
    elif end is End.TOO_LONG:
        limit = get_settings().validation_limit
        _fail(claim, "preflight_too_long", f"took longer than {limit} and was stopped")
    elif end is End.LEASE_LOST or code in (Exit.OUTCOME_WRITTEN, Exit.LEASE_LOST, Exit.DATABASE_AWAY):
        return  # of the last, the lease runs out, and somebody tries again
    elif code in (OUT_OF_MEMORY, -signal.SIGABRT):  # a library in Rust or C++ aborts where Python raises
        mib = get_settings().validation_memory_bytes // 2**20
        _fail(claim, "preflight_out_of_memory", f"needed more than the {mib} MiB of memory that it may take")
    else:
        _try_again(claim, code)


def _fail(claim: Claim, code: str, what: str) -> None:
    """Fails a preflight that reached a limit: another attempt would reach it too."""
    with unit_of_work() as db:
        phase = (runs.held(db, claim).progress or {}).get("phase", "reading")
        runs.finish_failed(db, claim, code, f"The preflight {what} (while {phase}).")


def _try_again(claim: Claim, code: int) -> None:
    """Gives a preflight back whose child crashed, or fails it if that was so too often."""
    reason = f"it exited with code {code}"
    if code < 0:
        reason = f"it was ended by {signal.Signals(-code).name}, perhaps for lack of memory"
    with unit_of_work() as db:
        if runs.is_worn_out(db, claim, get_settings().max_fruitless_attempts):
            message = f"The preflight ended early in each of its attempts. Of the last one: {reason}."
            runs.finish_failed(db, claim, "server_error", message)
        else:
            runs.requeue_crashed(db, claim)
