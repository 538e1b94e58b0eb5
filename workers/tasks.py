"""Thin tasks: a wake-up claims work until none is left, from jobs to data sets and runs of evals.

Plus a worker's waker and stop signal.

A message only makes it quicker: the waker takes the same work by itself, whatever the broker does.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from celery import signals
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

import app.tables  # noqa: F401  # foreign keys are found by table name
from app import queue
from app.db import unit_of_work
from app.evals import runs as eval_runs
from app.exports import runs as exports
from app.jobs import capacity, room, runs
from app.jobs.capacity import Capacity
from app.preflights import runs as preflights
from app.regrades import runs as regrades
from app.settings import get_settings
from workers.celery_app import celery
from workers.datasets.attempt import DATASETS
from workers.evals.attempt import EvalRuns
from workers.exports.attempt import Exports
from workers.jobs import children, validators
from workers.jobs.sweep import sweep
from workers.preflights.attempt import FILE_CHECKS, train_or_sample_next
from workers.regrades.attempt import Regrades

log = structlog.get_logger(__name__)

WAKER_SECONDS = 1.5
SWEEP_SECONDS = 60.0
EXIT_SECONDS = 10.0
"""How long a stopping worker may take to leave once its work is put down."""

STOPPING = threading.Event()
BUSY = threading.Lock()
OWNER = f"{socket.gethostname()}:{os.getpid()}"


@celery.task(name=queue.task_name("validate"))  # type: ignore[untyped-decorator]
def wake_validate() -> None:
    """Validate every job that waits for it, several at a time."""
    WORK["validate"]()


@celery.task(name=queue.task_name("evaluate"))  # type: ignore[untyped-decorator]
def wake_evaluate() -> None:
    """Carry out every run of an eval and every regrade that waits, several at a time."""
    WORK["evaluate"]()


@celery.task(name=queue.task_name("train"))  # type: ignore[untyped-decorator]
def wake_train() -> None:
    """Train every job that waits for it, one after the other."""
    WORK["train"]()


def _until_none_is_left(take_next: Callable[[], bool]) -> None:
    with BUSY:
        while not STOPPING.is_set() and take_next():
            pass


def _evaluate() -> bool:
    """Carries out runs of evals and regrades, several at a time."""
    return (
        validators.work_through((EvalRuns(), Regrades()), OWNER, STOPPING, get_settings().evals_at_once) > 0
    )


def _check_files() -> bool:
    return validators.validate_all(OWNER, STOPPING, FILE_CHECKS, DATASETS, Exports()) > 0


WORK: Mapping[queue.Queue, Callable[[], None]] = {
    "validate": lambda: _until_none_is_left(_check_files),
    "train": lambda: _until_none_is_left(lambda: train_or_sample_next(OWNER, STOPPING)),
    "evaluate": lambda: _until_none_is_left(_evaluate),
}
"""What a worker of each queue does when it is woken, by a message or by its own waker."""


@signals.celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def start_waker(instance: Any, **_: Any) -> None:
    """Watch the table for jobs whose message was lost or whose worker went silent, and for what is due.

    This begins before the broker has answered: it may be away for long.
    """
    kinds = [name for name in queue.QUEUES if name in instance.app.amqp.queues.consume_from]
    threading.Thread(target=_look_for_ever, args=(kinds,), name="waker", daemon=True).start()
    threading.Thread(target=_sweep_for_ever, name="sweep", daemon=True).start()
    if "validate" in kinds:
        children.warm_up()


def _look_for_ever(kinds: list[queue.Queue]) -> None:
    """Take what there is to do without any message, unless this worker is busy: then it looks again by
    itself."""
    offered = capacity.of_this_machine(get_settings())
    while not STOPPING.wait(WAKER_SECONDS):
        for kind in kinds:
            if BUSY.locked():
                continue
            try:
                with unit_of_work() as db:
                    if kind == "train":
                        room.resume_where_room(db)
                    is_needed = _has_work(db, kind, offered)
                if is_needed:
                    WORK[kind]()
            except SQLAlchemyError as problem:
                log.warning("waker_found_no_database", problem=str(problem))
            except Exception:  # one job's fault must not end the waker
                log.exception("waker_failed", queue=kind)


def _has_work(db: Session, kind: queue.Queue, offered: Capacity) -> bool:
    if kind == "evaluate":
        return eval_runs.has_work(db) or regrades.LEASES.has_work(db)
    return (
        runs.has_work(db, kind, offered)
        or preflights.has_work(db, kind, offered)
        or exports.has_work(db, kind)
        or (kind == "validate" and DATASETS.leases.has_work(db))
    )


def _sweep_for_ever() -> None:
    """Apart from the waker, which must not wait for a slow store."""
    while True:
        sweep(STOPPING)
        if STOPPING.wait(SWEEP_SECONDS):
            return


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def stop_working(**_: Any) -> None:
    """Put the work down.

    Runs within a signal handler, perhaps while this very thread waits on `STOPPING` and holds its lock,
    so that only another thread can set it.
    """
    threading.Thread(target=_leave_for_certain, name="leaver", daemon=True).start()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def wait_until_work_is_down(**_: Any) -> None:
    """The waker's thread may hold a job: leaving before it has put that down would kill its training."""
    STOPPING.set()
    with BUSY:
        pass


def _leave_for_certain() -> None:
    """Let the work stop, and end the process even if Celery waits for a broker that is gone."""
    STOPPING.set()
    with BUSY:
        pass
    threading.Event().wait(EXIT_SECONDS)
    log.warning("worker_left_by_force")
    os._exit(0)
