"""Checks a new job's files, grader and model before it is queued: every fault with its line."""

from __future__ import annotations

from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.db import limit_statements, unit_of_work
from app.disk import is_full, scratch_folder
from app.events import service as events
from app.jobs import room, runs, status
from app.jobs.status import Claim, LeaseLost
from app.logs import configure_logging
from app.settings import get_settings
from app.storable import clean
from workers.jobs.checks import Checked, Checks, find_parts
from workers.jobs.faults import Exit
from workers.jobs.job_data import SCRATCH, JobInvalid
from workers.training.base.errors import is_panic

log = structlog.get_logger(__name__)


def validate_claimed(job_id: str, attempt: int) -> int:
    """Checks a claimed job and moves it on: queued, or failed with the reason.

    It is all that the child process of a validation does, and returns that child's exit code. Raises
    `MemoryError` at the limit of its memory.
    """
    settings = get_settings()
    configure_logging(settings.log_level, settings.log_format)
    limit_statements(settings.database_work_limit)
    structlog.contextvars.bind_contextvars(job_id=job_id, attempt=attempt)
    try:
        _validate(Claim(job_id, attempt, "validating_files"))
    except LeaseLost:  # cancelled meanwhile, or another worker has it
        return Exit.LEASE_LOST
    except SQLAlchemyError:
        log.exception("validation_broke_off")
        return Exit.DATABASE_AWAY
    return Exit.OUTCOME_WRITTEN


def _validate(claim: Claim) -> None:
    try:
        checked = check(claim)
    except JobInvalid as fault:
        with unit_of_work() as db:
            runs.finish_failed(db, claim, fault.code, clean(fault.message), fault.param)
        return
    except (LeaseLost, MemoryError, SQLAlchemyError):
        raise
    except Exception as problem:
        if is_full(problem):
            with unit_of_work() as db:
                room.leave_until_room(db, claim)
            return
        log.exception("validation_failed")
        with unit_of_work() as db:
            runs.finish_failed(db, claim, "server_error", "The server failed while it read the files.")
        return
    except BaseException as problem:
        if not is_panic(problem):
            raise
        with unit_of_work() as db:
            message = f"The tokenizer of the model gave up over a row: {problem}"
            runs.finish_failed(db, claim, "model_invalid", clean(message), "model")
        return
    with unit_of_work() as db:
        status.update_held(db, claim)
        for number, doubt in enumerate(checked.doubts):
            events.append(db, claim.job_id, f"doubt-{number}", doubt.message, level="warn")
        for number, sentence in enumerate(filter(None, checked.told)):
            events.append(db, claim.job_id, f"told-{number}", sentence)
        total_steps = checked.config.job_steps(checked.n_rows)
        runs.queue_for_training(db, claim, checked.config.model_dump(mode="json"), total_steps)


def check(claim: Claim) -> Checked:
    """The resolved config of a claimed job, and what its data leaves in doubt. Raises `JobInvalid`."""
    with unit_of_work() as db:
        job = status.update_held(db, claim)
        parts = find_parts(db, job)
    with scratch_folder(SCRATCH) as scratch:
        checked = Checks(job, parts, scratch, partial(_enter, claim), _refuse).run()
    assert checked is not None, "a fault has been raised"
    return checked


def _refuse(fault: JobInvalid) -> None:
    raise fault


def _enter(claim: Claim, part: str) -> None:
    """Notes what comes now: if it never ends, this is what the owner is told. Raises `LeaseLost`."""
    with unit_of_work() as db:
        runs.set_phase(db, claim, part)
