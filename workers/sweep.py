"""What has expired is removed, once a minute, by any worker. To readers it is gone at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.files import service as files

log = structlog.get_logger(__name__)

BATCH = 100
REMOVERS: dict[str, Callable[[Session, int], int]] = {"expired_files": files.remove_expired}
"""By what they remove: each takes at most so many rows in one transaction and tells how many."""


def sweep(stopping: threading.Event) -> None:
    """Remove all that is due, in batches: one that is full says that there may be more."""
    for what, remove in REMOVERS.items():
        try:
            removed = _remove_all(remove, stopping)
        except SQLAlchemyError as problem:
            log.warning("not_swept", what=what, problem=str(problem))
            continue
        if removed:
            log.info("swept", what=what, rows=removed)


def _remove_all(remove: Callable[[Session, int], int], stopping: threading.Event) -> int:
    removed, is_full = 0, True
    while is_full and not stopping.is_set():
        with unit_of_work() as db:
            batch = remove(db, BATCH)
        removed += batch
        is_full = batch >= BATCH
    return removed
