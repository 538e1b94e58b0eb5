"""Keeps the files of a project: a place is reserved, bytes are stored there, then they get their row.

When a file is deleted the row goes first. Bytes without a row are in `loose_bytes` all the while, where the
sweep finds them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal, NamedTuple

import structlog
from sqlalchemy import ColumnElement, Select, delete, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.db import after_commit
from app.errors import BadRequest, NotFound, QuotaExceeded, RequestTimeout
from app.files.models import File, LooseBytes
from app.ids import random_id
from app.jobs.models import ACTIVE, Job
from app.pagination import Owned, Page, page_by_age
from app.settings import get_settings
from app.storage import get_storage

log = structlog.get_logger(__name__)

Order = Literal["asc", "desc"]

STORE_WITHIN = timedelta(hours=2)
"""Time from a reservation to the file. Bytes that take longer are removed."""


class Stored(NamedTuple):
    """Bytes that lie in storage and have no row yet."""

    file_id: str
    key: str
    size: int
    sha256: str


def reserve(db: Session, folder: str = "files") -> str:
    """Reserves the id of a file that shall be, and a place for its bytes. Commit it before they are
    stored."""
    file_id = random_id("file-")
    db.add(LooseBytes(key=f"{folder}/{file_id}", clear_at=func.now() + STORE_WITHIN))
    return file_id


def store_path(file_id: str, path: Path, size: int, sha256: str) -> Stored:
    """Moves a file into its reserved place. Call it outside of transactions, then `create`."""
    key = f"files/{file_id}"
    get_storage().put_file(key, path, move=True)
    return Stored(file_id, key, size, sha256)


def store_bytes(file_id: str, data: bytes) -> Stored:
    """Stores something small, such as a result file, in the same way."""
    key = f"files/{file_id}"
    get_storage().put_bytes(key, data)
    return Stored(file_id, key, len(data), hashlib.sha256(data).hexdigest())


def create(
    db: Session,
    project_id: str,
    stored: Stored,
    *,
    filename: str,
    purpose: str,
    expires_after: timedelta | None = None,
) -> File:
    """Gives stored bytes to a project as a file. Raises `RequestTimeout` if the sweep has taken them."""
    own = (LooseBytes.key == stored.key, ~LooseBytes.is_taken)
    if db.scalars(delete(LooseBytes).where(*own).returning(LooseBytes.key)).first() is None:
        hours = STORE_WITHIN.total_seconds() / 3600
        raise RequestTimeout(f"The file was not stored within {hours:.0f} hours. Send it again.")
    file = File(
        id=stored.file_id,
        project_id=project_id,
        filename=filename,
        bytes=stored.size,
        sha256=stored.sha256,
        purpose=purpose,
        storage_key=stored.key,
        expires_at=func.now() + expires_after if expires_after else None,
    )
    db.add(file)
    db.flush()
    db.refresh(file, ["expires_at"])  # the database has computed it
    return file


def check_room(db: Session, project_id: str, size: int) -> None:
    """Refuses bytes beyond what a project may store. Raises `QuotaExceeded`.

    Requests at the same time do not see each other here: together they may pass the limit by what they bring.
    """
    limit = get_settings().max_project_bytes
    used = db.scalar(select(func.coalesce(func.sum(File.bytes), 0)).where(File.project_id == project_id)) or 0
    if used + size > limit:
        raise QuotaExceeded(
            f"This project stores {used} bytes and may store {limit}: {size} more do not fit. "
            "Delete files first."
        )


def get(db: Session, project_id: str, file_id: str) -> File:
    """Returns a file of the project. Raises `NotFound`."""
    file = db.scalars(_visible(project_id).where(File.id == file_id)).first()
    if file is None:
        raise not_found(file_id)
    return file


def list_files(
    db: Session, project_id: str, *, purpose: str | None, order: Order, after: str | None, limit: int
) -> Page[File]:
    """Lists files by age, newest first unless `order` is "asc"."""
    query = _visible(project_id)
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    of = Owned(File.project_id, project_id)
    return page_by_age(db, query, of, after=after, limit=limit, newest_first=order == "desc")


def for_job(db: Session, project_id: str, file_id: str, param: str) -> File:
    """Returns a file that a new job may read, locked against deletion until the job's row is there.

    Raises `NotFound` or `BadRequest`, naming the request's field `param`.
    """
    query = _visible(project_id).where(File.id == file_id).with_for_update(read=True)
    file = db.scalars(query).first()
    if file is None:
        raise not_found(file_id, param)
    if file.purpose != "fine-tune":
        message = f"File {file.shown} has the purpose '{file.purpose}'; a job needs one with 'fine-tune'."
        raise BadRequest(message, param=param, code="invalid_value")
    return file


def remove(db: Session, project_id: str, file_id: str) -> None:
    """Deletes a file. Raises `NotFound`, or `BadRequest` while an unfinished job uses it."""
    file = db.scalars(_visible(project_id).where(File.id == file_id).with_for_update()).first()
    if file is None:
        raise not_found(file_id)
    active = select(Job.id).where(
        Job.project_id == project_id, Job.status.in_(ACTIVE), _is_file_of_job(file_id)
    )
    if job_id := db.scalars(active.limit(1)).first():
        message = f"File {file.shown} is used by the unfinished job {job_id}. Cancel that job first."
        raise BadRequest(message, param="id")
    _delete(db, [file])
    after_commit(db, lambda: _forget(file.storage_key))


def _is_file_of_job(file_id: InstrumentedAttribute[str] | str) -> ColumnElement[bool]:
    """Tells whether a job reads the file."""
    return or_(Job.training_file == file_id, Job.validation_file == file_id, Job.canary_file == file_id)


def remove_expired(db: Session, limit: int = 100) -> int:
    """Deletes some files whose time is over, except those an unfinished job uses. Returns how many.

    Their bytes are loose afterwards.
    """
    used = select(Job.id).where(Job.status.in_(ACTIVE), _is_file_of_job(File.id))
    expired = select(File).where(File.expires_at <= func.now(), ~used.exists())
    files = db.scalars(expired.limit(limit).with_for_update(skip_locked=True)).all()
    _delete(db, files)
    return len(files)


def take_loose(db: Session, limit: int) -> Sequence[str]:
    """Returns the keys of some bytes whose time is over. Once this is committed they can become no file."""
    due = select(LooseBytes.key).where(LooseBytes.clear_at <= func.now()).order_by(LooseBytes.clear_at)
    due = due.limit(limit).with_for_update(skip_locked=True)
    taken = update(LooseBytes).where(LooseBytes.key.in_(due)).values(is_taken=True)
    return db.scalars(taken.returning(LooseBytes.key)).all()


def remove_bytes(key: str) -> None:
    """Removes what lies at a place; one that ends in a slash is a folder."""
    if key.endswith("/"):
        get_storage().delete_prefix(key.rstrip("/"))
    else:
        get_storage().delete(key)


def forget_loose(db: Session, keys: Collection[str]) -> None:
    """Forgets places whose bytes were removed."""
    db.execute(delete(LooseBytes).where(LooseBytes.key.in_(keys)))


def not_found(file_id: str, param: str = "id") -> NotFound:
    return NotFound(f"No such File object: {file_id}", param=param)


def _visible(project_id: str) -> Select[File]:
    in_time = or_(File.expires_at.is_(None), File.expires_at > func.now())
    return select(File).where(File.project_id == project_id, in_time)


def _delete(db: Session, files: Collection[File]) -> None:
    db.execute(delete(File).where(File.id.in_([file.id for file in files])))
    db.add_all(LooseBytes(key=file.storage_key, clear_at=func.now(), is_taken=True) for file in files)


def _forget(key: str) -> None:
    try:
        get_storage().delete(key)
    except Exception:  # the sweep comes by
        log.exception("file_not_removed", key=key)
