"""Takes a file from a form of the dashboard, as `POST /v1/files` takes it from a client."""

from __future__ import annotations

from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.auth import Caller
from app.files.keeping import keep
from app.files.models import File
from app.files.receive import receive_upload
from app.files.schemas import UploadForm
from app.settings import get_settings


async def take(request: Request, caller: Caller) -> File:
    """Receives and keeps the file of this request. Raises `ApiError` for what the API refuses too."""
    settings = get_settings()
    spool = settings.data_dir / "uploads"
    room = settings.least_free_bytes
    async with receive_upload(request, spool, settings.max_file_bytes, leave_free=room) as upload:
        form = UploadForm.of(upload)
        return await run_in_threadpool(keep, caller.project_id, form, upload, _shown)


def _shown(db: Session, file: File) -> File:
    db.expunge(file)
    return file
