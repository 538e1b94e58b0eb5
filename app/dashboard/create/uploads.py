"""Takes a file from a form of the dashboard, as `POST /v1/files` takes it from a client."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.auth import Caller
from app.db import unit_of_work
from app.files import service as files
from app.files.models import File
from app.files.receive import Upload, receive_upload
from app.files.schemas import UploadForm
from app.settings import get_settings
from app.storage import get_storage


async def take(request: Request, caller: Caller) -> File:
    """Receives and keeps the file of this request. Raises `ApiError` for what the API refuses too."""
    settings = get_settings()
    spool = settings.data_dir / "uploads"
    room = settings.least_free_bytes
    async with receive_upload(request, spool, settings.max_file_bytes, leave_free=room) as upload:
        form = UploadForm.of(upload)
        return await run_in_threadpool(_keep, caller, form, upload)


def _keep(caller: Caller, form: UploadForm, upload: Upload) -> File:
    """Puts the upload into storage, then makes its row: no transaction is open while bytes move."""
    with unit_of_work() as db:
        file_id = files.reserve(db)
    stored = files.store_path(file_id, upload.path, upload.size, upload.sha256)
    try:
        with unit_of_work() as db:
            files.check_room(db, caller.project_id, stored.size)
            file = files.create(
                db,
                caller.project_id,
                stored,
                filename=upload.filename,
                purpose=form.purpose,
                expires_after=form.expires_after,
            )
            db.expunge(file)
            return file
    except BaseException:
        get_storage().delete(stored.key)
        raise
