"""What has expired or was left behind is removed, once a minute, by any worker.

To readers what has expired is gone at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app import left_places
from app.db import unit_of_work
from app.erasures import service as erasures
from app.exports import service as exports
from app.files import service as files
from app.idempotency import service as idempotency
from app.responses import service as responses
from app.storage import STORAGE_FAULTS, get_storage
from app.tenants import sessions
from app.uploads import service as uploads
from workers.jobs import leftovers

log = structlog.get_logger(__name__)

BATCH = 100
UNFINISHED = timedelta(hours=24)
"""Age at which a half written file is the remains of a process that was killed."""


def sweep(stopping: threading.Event, most: int = BATCH) -> None:
    """Removes all that is due, in batches of `most`: one that is full says that there may be more."""
    for what, remove_batch in REMOVERS.items():
        removed, is_full = 0, True
        try:
            while is_full and not stopping.is_set():
                batch = remove_batch(most)
                removed, is_full = removed + batch, batch >= most
        except (SQLAlchemyError, *STORAGE_FAULTS) as problem:
            log.warning("not_swept", what=what, problem=str(problem))
        if removed:
            log.info("swept", what=what, rows=removed)


def _expired_files(most: int) -> int:
    with unit_of_work() as db:
        return files.remove_expired(db, most)


def _loose_bytes(most: int) -> int:
    """Bytes before rows, as below."""
    with unit_of_work() as db:
        keys = files.take_loose(db, most)
    for key in keys:
        files.remove_bytes(key)
    with unit_of_work() as db:
        files.forget_loose(db, keys)
    return len(keys)


def _unfinished_writes(_: int) -> int:
    return get_storage().remove_unfinished(UNFINISHED)


def _ended_uploads(most: int) -> int:
    """Bytes before rows: a sweep that is killed in between is done again."""
    with unit_of_work() as db:
        due = uploads.due(db, most)
        uploads.expire(db, due)
    with unit_of_work() as db:
        file_ids = uploads.file_ids(db, due)
    for upload_id, file_id in file_ids.items():
        uploads.clear_bytes(upload_id, file_id)
    with unit_of_work() as db:
        uploads.forget_parts(db, due)
    return len(due)


def _working_folders(_: int) -> int:
    return leftovers.remove_folders()


def _scratch_folders(_: int) -> int:
    return leftovers.remove_scratch()


def _idempotency_keys(most: int) -> int:
    with unit_of_work() as db:
        return idempotency.remove_expired(db, most)


def _ended_sessions(most: int) -> int:
    with unit_of_work() as db:
        return sessions.remove_ended(db, most)


def _left_places(most: int) -> int:
    with unit_of_work() as db:
        return left_places.remove_old(db, most)


def _stored(kind: str) -> Callable[[int], int]:
    """Returns what removes stored completions or responses whose time is over."""

    def remove(most: int) -> int:
        with unit_of_work() as db:
            return erasures.remove_expired(db, kind, most)

    return remove


def _silent_responses(most: int) -> int:
    """Those in the background whose process has ended are over, and are told to have failed."""
    with unit_of_work() as db:
        return responses.fail_silent(db, most)


def _exports(most: int) -> int:
    with unit_of_work() as db:
        return exports.remove_due(db, most)


REMOVERS: dict[str, Callable[[int], int]] = {
    "expired_files": _expired_files,
    "exports": _exports,
    "loose_bytes": _loose_bytes,
    "unfinished_writes": _unfinished_writes,
    "ended_uploads": _ended_uploads,
    "stored_by_runs": leftovers.remove_stored,
    "working_folders": _working_folders,
    "scratch_folders": _scratch_folders,
    "idempotency_keys": _idempotency_keys,
    "ended_sessions": _ended_sessions,
    "left_places": _left_places,
    **{kind: _stored(kind) for kind in erasures.STORED},
    "silent_responses": _silent_responses,
}
"""By what they remove. Each is given how many it may take at most, and returns how many it has removed."""
