"""Validates the jobs that wait, several at a time, each in a child process with limits of time and memory.

A child (`validate_claimed` in validation.py) writes its own outcome under the fence. This side settles what a
child cannot: a limit, a crash, a cancel, a stopping worker. No project gets all places: it has another one
only where as many stay free for others as it holds already.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import timedelta
from enum import Enum
from functools import partial
from typing import NamedTuple, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.disk import scratch_folder
from app.jobs import runs, status, turns
from app.jobs.capacity import Capacity
from app.jobs.models import Job
from app.jobs.status import Claim, LeaseLost
from app.settings import get_settings
from workers.jobs import children
from workers.jobs.attempt import LOOK_SECONDS
from workers.jobs.children import Child
from workers.jobs.faults import Exit
from workers.jobs.fork_server import OUT_OF_MEMORY
from workers.jobs.job_data import SCRATCH

log = structlog.get_logger(__name__)

CHECK = "workers.jobs.validation:validate_claimed"
LAST_STEPS_SECONDS = 1.0
"""How long a child that has written its outcome may take to end by itself."""
POLL_SECONDS = 0.2
"""How soon a validation notices that its worker stops."""


NO_CAPACITY = Capacity(gpus=0, processes=1)
"""Checks of files ask for no device."""


class Part(NamedTuple):
    """A part of a validation that may take long, as its job's owner is told of it."""

    doing: str
    param: str
    advice: str


PARTS = {
    "reading": Part("its files were read", "training_file", "Use a smaller file."),
    "grading": Part(
        "its grader was tried on the rows",
        "method.reinforcement.grader",
        "Use a faster grader or fewer rows.",
    ),
    "rendering": Part(
        "the model's chat template made prompts of the rows",
        "model",
        "The template may not come to an end with one of them, or there are too many.",
    ),
}
"""By the phase that the child notes in its job's row."""


class End(Enum):
    """Why a validation is over."""

    EXITED = "exited"
    WORKER_STOPS = "worker stops"
    TOO_LONG = "too long"
    LEASE_LOST = "lease lost"


class Work(NamedTuple):
    """Something that was claimed, and whose it is."""

    project_id: str
    do: Callable[[threading.Event], None]
    """Does it until its end, or until the worker stops."""


class Queued(Protocol):
    """A kind of work that waits for a place, and whose projects take turns with those of other kinds."""

    def place(self, db: Session, passed_over: Sequence[str]) -> turns.Place | None:
        """Returns where the work waits that is next; None without any."""

    def claim(self, db: Session, owner: str, passed_over: Sequence[str]) -> Work | None:
        """Claims what is next, of none of the projects `passed_over`."""


class Validations:
    """The validations of jobs."""

    def place(self, db: Session, passed_over: Sequence[str]) -> turns.Place | None:
        return runs.place_in_queue(db, "validate", NO_CAPACITY, passed_over)

    def claim(self, db: Session, owner: str, passed_over: Sequence[str]) -> Work | None:
        claim = runs.claim_for_validation(db, owner, get_settings().lease, passed_over)
        if claim is None:
            return None
        return Work(db.get_one(Job, claim.job_id).project_id, partial(_validate, claim))


def validate_all(owner: str, stopping: threading.Event, *others: Queued) -> int:
    """Validates every job that waits, and those that come meanwhile; what `others` have too.

    Returns how many that were.
    """
    return work_through((Validations(), *others), owner, stopping, get_settings().validations_at_once)


def work_through(kinds: Sequence[Queued], owner: str, stopping: threading.Event, places: int) -> int:
    """Carries out all work of these kinds that waits, and what comes meanwhile, so much of it at a time.

    Returns how many that were.
    """
    under_way: dict[Future[None], str] = {}
    count = 0
    with ThreadPoolExecutor(places, thread_name_prefix="validation") as pool:
        while not stopping.is_set():
            work = _claim_next(kinds, owner, Counter(under_way.values()), places)
            if work is not None:
                under_way[pool.submit(work.do, stopping)] = work.project_id
                count += 1
            elif not under_way:
                break
            else:
                done, _ = wait(under_way, LOOK_SECONDS, FIRST_COMPLETED)
                for future in done:
                    del under_way[future]
                    future.result()
    return count


def _claim_next(kinds: Sequence[Queued], owner: str, held: Counter[str], places: int) -> Work | None:
    """Claims something for a free place; `held` are the places that each project has."""
    left = places - held.total() - 1
    if left < 0:
        return None
    full = [project_id for project_id, count in held.items() if count > left]
    try:
        for kind in _in_turn(kinds, full):
            with unit_of_work() as db:
                work = kind.claim(db, owner, full)
            if work is not None:
                return work
    except SQLAlchemyError as problem:
        if not held:
            raise
        log.warning("no_job_claimed", problem=str(problem))
    return None


def _in_turn(kinds: Sequence[Queued], passed_over: Sequence[str]) -> list[Queued]:
    """Returns the kinds that have something waiting, first the one whose project's turn it is."""
    with unit_of_work() as db:
        found = [(place, kind) for kind in kinds if (place := kind.place(db, passed_over)) is not None]
    return [kind for _, kind in sorted(found, key=lambda each: each[0])]


def _validate(claim: Claim, stopping: threading.Event) -> None:
    """Has a claimed job checked, and settles what the child that checks it leaves open."""
    log.info("validation_started", job_id=claim.job_id, attempt=claim.attempt)
    try:
        if not _was_worn_out(claim):
            with scratch_folder(SCRATCH) as scratch:
                end, code = _check_in_child(claim, stopping, str(scratch))
            _settle(claim, end, code)
    except LeaseLost:  # cancelled meanwhile, or another worker has it
        log.info("validation_lost_its_job", job_id=claim.job_id)
    except SQLAlchemyError:
        log.exception("validation_broke_off", job_id=claim.job_id)
        stopping.wait(1)  # the lease runs out, and somebody tries again


def _was_worn_out(claim: Claim) -> bool:
    """Fails a job whose validations were lost too often, whoever had them."""
    with unit_of_work() as db:
        if not runs.was_worn_out(db, claim, get_settings().max_fruitless_attempts):
            return False
        runs.finish_failed(
            db, claim, "server_error", "The workers that read the files were lost again and again."
        )
    return True


def _check_in_child(claim: Claim, stopping: threading.Event, scratch: str) -> tuple[End, int]:
    """Returns why a validation is over, and its child's exit code. No child is left then."""
    arguments = {"job_id": claim.job_id, "attempt": claim.attempt}
    child = children.start(CHECK, arguments, get_settings().validation_memory_bytes, scratch)

    def renew() -> None:
        with unit_of_work() as db:
            runs.renew(db, claim, get_settings().lease)

    return watch_to_its_end(child, renew, LeaseLost, stopping, get_settings().validation_limit)


def watch_to_its_end(
    child: Child,
    renew: Callable[[], None],
    lost: type[Exception],
    stopping: threading.Event,
    limit: timedelta,
) -> tuple[End, int]:
    """Returns why a child's work is over, at the latest after the `limit`, and its exit code.

    No child is left then. `renew` keeps the lease on what it works at, and raises `lost` where that is
    another's now.
    """
    try:
        end = _watch(child, renew, lost, stopping, limit)
    finally:
        code = child.kill()
    return end, code


def _watch(
    child: Child,
    renew: Callable[[], None],
    lost: type[Exception],
    stopping: threading.Event,
    limit: timedelta,
) -> End:
    """Keeps the lease while the child lives; returns when there is something to do."""
    settings = get_settings()
    too_long = time.monotonic() + limit.total_seconds()
    next_look = 0.0
    while child.wait(POLL_SECONDS) is None:
        now = time.monotonic()
        if stopping.is_set():
            return End.WORKER_STOPS
        if now > too_long:
            return End.TOO_LONG
        if now < next_look:
            continue
        next_look = now + min(LOOK_SECONDS, settings.lease.total_seconds() / 6)
        try:
            renew()
        except lost:  # by a cancel; or the child has just written its outcome and is about to end
            return End.LEASE_LOST if child.wait(LAST_STEPS_SECONDS) is None else End.EXITED
        except SQLAlchemyError as problem:  # the fence keeps us safe if this outlasts the lease
            log.warning("lease_not_renewed", problem=str(problem))
    return End.EXITED


def _settle(claim: Claim, end: End, code: int) -> None:
    """Writes what the child could not. Raises `LeaseLost` if the job is not ours any more."""
    log.info("validation_over", job_id=claim.job_id, end=end.value, code=code)
    if end is End.WORKER_STOPS:
        with unit_of_work() as db:
            runs.release(db, claim)
    elif end is End.TOO_LONG:
        _fail(claim, "validation_too_long", f"took longer than {get_settings().validation_limit}")
    elif end is End.LEASE_LOST or code in (Exit.OUTCOME_WRITTEN, Exit.LEASE_LOST, Exit.DATABASE_AWAY):
        return  # of the last, the lease runs out, and somebody tries again
    elif code in (OUT_OF_MEMORY, -signal.SIGABRT):  # a library in Rust or C++ aborts where Python raises
        mib = get_settings().validation_memory_bytes // 2**20
        _fail(claim, "validation_out_of_memory", f"needed more than the {mib} MiB of memory that it may take")
    else:
        _try_again(claim, code)


def _fail(claim: Claim, code: str, what: str) -> None:
    """Fails a job whose validation reached a limit: another attempt would reach it too."""
    with unit_of_work() as db:
        part = PARTS.get(status.update_held(db, claim).phase or "", PARTS["reading"])
        message = f"The validation {what} and was stopped while {part.doing}. {part.advice}"
        runs.finish_failed(db, claim, code, message, part.param)


def _try_again(claim: Claim, code: int) -> None:
    """Gives a job back whose child crashed, or fails it if that was so too often."""
    reason = f"it exited with code {code}"
    if code < 0:
        name = signal.Signals(-code).name
        reason = f"it was ended by {name}, perhaps for lack of memory"
    with unit_of_work() as db:
        if runs.is_worn_out(db, claim, get_settings().max_fruitless_attempts):
            message = f"The validation ended early in each of its attempts. Of the last one: {reason}."
            runs.finish_failed(db, claim, "server_error", message)
        else:
            runs.requeue_crashed(db, claim, reason)
