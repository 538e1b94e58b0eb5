"""Says what may happen to an upload of a project, and what it becomes.

Parts of one upload may arrive side by side; each of them, completing and cancelling lock its row, so that
nothing is added to what has ended. Bytes are stored before the row that speaks of them and may be left behind
by a process that is killed in between; `clear_at` says when the sweep looks for those.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple

import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from app.db import after_commit
from app.errors import BadRequest, NotFound
from app.files import service as files
from app.files.models import File
from app.files.receive import clean_filename
from app.files.schemas import FieldNames, check_fits_purpose, default_expiry
from app.files.service import Stored
from app.ids import random_id
from app.storage import get_storage
from app.uploads.models import Upload, UploadPart
from app.uploads.schemas import MAX_PARTS, UploadCreate

log = structlog.get_logger(__name__)

LIFE = timedelta(hours=1)
CLEAR_AFTER = timedelta(hours=1)
"""Time from the end of an upload to the sweep of its bytes: requests that were under way have ended by
then."""
MAX_PART_BYTES = 64 * 2**20


class Plan(NamedTuple):
    """A completion that was found right: these parts, in this order."""

    upload_id: str
    part_ids: tuple[str, ...]
    size: int
    file_id: str
    """The id that is reserved for what it becomes."""


class Finished(NamedTuple):
    """An upload and the file that it became (None if that was deleted since)."""

    upload: Upload
    file: File | None


class ChecksumDiffers(ValueError):
    """The parts are whole, but not what the client meant to send."""


def create(db: Session, project_id: str, request: UploadCreate, *, max_bytes: int) -> Upload:
    """Announces a file. Raises `BadRequest` or `QuotaExceeded`."""
    if request.bytes > max_bytes:
        message = (
            f"Invalid value for 'bytes': expected a value <= {max_bytes}, but got {request.bytes} instead."
        )
        raise BadRequest(message, param="bytes", code="integer_above_max_value")
    filename = clean_filename(request.filename)
    check_fits_purpose(request.purpose, filename, request.bytes, FieldNames("filename", "bytes"))
    announced = select(func.coalesce(func.sum(Upload.bytes), 0)).where(
        Upload.project_id == project_id, Upload.status == "pending", Upload.expires_at > func.now()
    )
    files.check_room(db, project_id, request.bytes + (db.scalar(announced) or 0))
    expiry = default_expiry(request.purpose)
    if request.expires_after:
        expiry = timedelta(seconds=request.expires_after.seconds)
    upload = Upload(
        id=random_id("upload_"),
        project_id=project_id,
        filename=filename,
        purpose=request.purpose,
        bytes=request.bytes,
        mime_type=request.mime_type,
        expires_after_seconds=int(expiry.total_seconds()) if expiry else None,
        expires_at=func.now() + LIFE,
        clear_at=func.now() + LIFE + CLEAR_AFTER,
    )
    db.add(upload)
    db.flush()
    return upload


def get(db: Session, project_id: str, upload_id: str, *, lock: bool = False) -> Upload:
    """Returns an upload of the project, `expired` from its last second on. Raises `NotFound`."""
    own = (Upload.id == upload_id, Upload.project_id == project_id)
    query = select(Upload, Upload.expires_at <= func.now()).where(*own)
    found = db.execute(query.with_for_update() if lock else query).first()
    if found is None:
        raise NotFound(f"No such Upload object: {upload_id}", param="upload_id")
    upload, is_over = found
    if is_over and upload.status == "pending":
        upload.status = "expired"
    return upload


def finished(db: Session, upload: Upload) -> Finished:
    file = db.get(File, upload.file_id) if upload.file_id else None
    return Finished(upload, file)


def check_open(upload: Upload, doing: str) -> None:
    """Raises `BadRequest` unless the upload still takes parts."""
    if upload.status != "pending":
        has = "has expired" if upload.status == "expired" else f"is already {upload.status}"
        raise BadRequest(f"Upload {upload.id} {has}; {doing}. Create a new upload.", param="upload_id")


def part_key(upload_id: str, part_id: str) -> str:
    return f"uploads/{upload_id}/parts/{part_id}"


def add_part(db: Session, project_id: str, upload_id: str, part_id: str, size: int) -> UploadPart:
    """Makes stored bytes a part. Raises `NotFound` or `BadRequest`.

    A client that repeats a part it took for lost leaves two; so an upload takes twice what it announced.
    """
    upload = get(db, project_id, upload_id, lock=True)
    check_open(upload, "it takes no more parts")
    if size > upload.bytes:
        message = f"The part has {size} bytes; the whole upload was announced with {upload.bytes}."
        raise BadRequest(message, param="data")
    sums = select(func.count(), func.coalesce(func.sum(UploadPart.bytes), 0))
    count, total = db.execute(sums.where(UploadPart.upload_id == upload_id)).one()
    if count >= MAX_PARTS:
        raise BadRequest(f"Upload {upload_id} has {MAX_PARTS} parts, which is the maximum.", param="data")
    if total + size > 2 * upload.bytes:
        message = (
            f"The parts have {total + size} bytes, more than twice the {upload.bytes} that were announced."
        )
        raise BadRequest(message, param="data")
    part = UploadPart(id=part_id, upload_id=upload_id, bytes=size)
    db.add(part)
    db.flush()
    return part


def plan(db: Session, project_id: str, upload_id: str, part_ids: Sequence[str]) -> Plan | Finished:
    """Returns what completing would put together, or what it did if this very call was made before.

    Raises `NotFound`, or `BadRequest` naming what does not fit.
    """
    upload = get(db, project_id, upload_id)
    if upload.status == "completed" and upload.part_ids == list(part_ids):
        return finished(db, upload)
    check_open(upload, "it cannot be completed")
    query = select(UploadPart.id, UploadPart.bytes).where(UploadPart.upload_id == upload_id)
    sizes = dict(db.execute(query).all())
    for index, name in enumerate(part_ids):
        if name not in sizes:
            message = f"Upload {upload_id} has no part {name}."
            raise BadRequest(message, param=f"part_ids[{index}]", code="invalid_value")
    if len(set(part_ids)) < len(part_ids):
        raise BadRequest("A part is named twice.", param="part_ids", code="invalid_value")
    total = sum(sizes[name] for name in part_ids)
    if total != upload.bytes:
        message = f"The parts have {total} bytes together; the upload was announced with {upload.bytes}."
        raise BadRequest(message, param="part_ids", code="invalid_value")
    return Plan(upload_id, tuple(part_ids), total, files.reserve(db, f"uploads/{upload_id}"))


def compose(plan: Plan, md5: str | None) -> Stored:
    """Writes the parts as one file, a chunk at a time. Call it outside of transactions, then `complete`.

    Raises `ChecksumDiffers`, or `FileNotFoundError` if the upload has ended meanwhile; nothing is left then.
    """
    key = f"uploads/{plan.upload_id}/{plan.file_id}"
    sha256 = hashlib.sha256()
    wanted = hashlib.md5(usedforsecurity=False) if md5 is not None else None

    def chunks() -> Iterator[bytes]:
        for part_id in plan.part_ids:
            for chunk in get_storage().open_stream(part_key(plan.upload_id, part_id)):
                sha256.update(chunk)
                if wanted:
                    wanted.update(chunk)
                yield chunk

    get_storage().put_stream(key, chunks())
    if wanted and wanted.hexdigest() != (md5 or "").lower():
        get_storage().delete(key)
        raise ChecksumDiffers(f"The md5 of the parts is {wanted.hexdigest()}, not {(md5 or '')[:64]!r}.")
    return Stored(plan.file_id, key, plan.size, sha256.hexdigest())


def complete(db: Session, project_id: str, plan: Plan, stored: Stored) -> Finished:
    """Makes the composed bytes the upload's file, unless the same call was faster or the upload has ended.

    Raises `BadRequest` or `QuotaExceeded`. The caller deletes bytes that did not become the file.
    """
    upload = db.scalars(select(Upload).where(Upload.id == plan.upload_id).with_for_update()).one()
    if upload.status == "completed" and upload.part_ids == list(plan.part_ids):
        return finished(db, upload)
    check_open(upload, "it cannot be completed")
    files.check_room(db, project_id, stored.size)
    expiry = upload.expires_after_seconds
    file = files.create(
        db,
        project_id,
        stored,
        filename=upload.filename,
        purpose=upload.purpose,
        expires_after=timedelta(seconds=expiry) if expiry else None,
    )
    upload.status, upload.part_ids, upload.file_id = "completed", list(plan.part_ids), file.id
    _end(db, upload)
    return Finished(upload, file)


def cancel(db: Session, project_id: str, upload_id: str) -> Upload:
    """Gives an upload up; doing it twice is no fault. Raises `NotFound` or `BadRequest`."""
    upload = get(db, project_id, upload_id, lock=True)
    if upload.status != "cancelled":
        check_open(upload, "it cannot be cancelled")
        upload.status = "cancelled"
        _end(db, upload)
    return upload


def due(db: Session, limit: int) -> list[str]:
    """Returns the uploads whose bytes the sweep should look through."""
    query = select(Upload.id).where(Upload.clear_at <= func.now()).order_by(Upload.clear_at)
    return list(db.scalars(query.limit(limit)))


def expire(db: Session, upload_ids: Sequence[str]) -> None:
    """Writes down that these have expired, unless they ended otherwise: nothing happens to them any more."""
    pending = (Upload.id.in_(upload_ids), Upload.status == "pending")
    db.execute(update(Upload).where(*pending).values(status="expired"))


def clear_bytes(upload_id: str, file_id: str | None) -> None:
    """Removes every byte of an ended upload that is not its file's."""
    storage = get_storage()
    for key in storage.list_keys(f"uploads/{upload_id}"):
        if key != f"uploads/{upload_id}/{file_id}":
            storage.delete(key)


def forget_parts(db: Session, upload_ids: Sequence[str]) -> None:
    """Removes the parts' rows of uploads whose bytes were cleared."""
    db.execute(delete(UploadPart).where(UploadPart.upload_id.in_(upload_ids)))
    db.execute(update(Upload).where(Upload.id.in_(upload_ids)).values(clear_at=None))


def file_ids(db: Session, upload_ids: Sequence[str]) -> dict[str, str | None]:
    """Returns the file that each has become."""
    query = select(Upload.id, Upload.file_id).where(Upload.id.in_(upload_ids))
    return dict(db.execute(query).all())


def _end(db: Session, upload: Upload) -> None:
    upload.clear_at = func.now() + CLEAR_AFTER
    db.flush()
    prefix = f"uploads/{upload.id}/parts"
    after_commit(db, lambda: _forget(prefix))


def _forget(prefix: str) -> None:
    try:
        get_storage().delete_prefix(prefix)
    except Exception:  # the sweep comes by
        log.exception("parts_not_removed", prefix=prefix)
