"""Keeps a file that has been received: its bytes first, then its row."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.files import service as files
from app.files.models import File
from app.files.receive import Upload
from app.files.schemas import UploadForm
from app.storage import get_storage

Kept = TypeVar("Kept")


def keep(project_id: str, form: UploadForm, upload: Upload, then: Callable[[Session, File], Kept]) -> Kept:
    """Puts the upload into storage, then makes its row: no transaction is open while bytes move.

    Returns what `then` makes of the row, in the transaction of the row. Where that does not end well, the
    bytes are deleted. Raises `ApiError`.
    """
    with unit_of_work() as db:
        file_id = files.reserve(db)
    stored = files.store_path(file_id, upload.path, upload.size, upload.sha256)
    try:
        with unit_of_work() as db:
            files.check_room(db, project_id, stored.size)
            file = files.create(
                db,
                project_id,
                stored,
                filename=upload.filename,
                purpose=form.purpose,
                expires_after=form.expires_after,
            )
            return then(db, file)
    except BaseException:
        get_storage().delete(stored.key)
        raise
