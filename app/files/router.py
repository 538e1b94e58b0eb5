"""Serves /v1/files."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.files import service as files
from app.files.keeping import keep
from app.files.models import File
from app.files.receive import receive_upload
from app.files.schemas import FileDeleted, FileList, FileOut, UploadForm
from app.files.sending import sent
from app.http.openapi import binary
from app.http.transaction import CurrentCaller, Db, KeptRoute, claim_form, keep_response
from app.pagination import Cursor
from app.settings import get_settings

router = APIRouter(prefix="/v1/files", tags=["files"], route_class=KeptRoute)

FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file", "purpose"],
                "properties": {
                    "file": {"type": "string", "format": "binary"},
                    "purpose": {"type": "string"},
                    "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                    "expires_after[seconds]": {"type": "integer"},
                },
            }
        }
    },
}


@router.post(
    "", response_model=FileOut, response_model_exclude_none=True, openapi_extra={"requestBody": FORM}
)
async def create_file(request: Request, caller: CurrentCaller) -> FileOut | Response:
    """Upload a file. Training data is JSONL with the purpose `fine-tune`."""
    settings = get_settings()
    spool = settings.data_dir / "uploads"
    async with receive_upload(
        request, spool, settings.max_file_bytes, leave_free=settings.least_free_bytes
    ) as upload:
        form = UploadForm.of(upload)
        if earlier := await claim_form(request, upload.parameters()):
            return earlier

        def show(db: Session, file: File) -> FileOut:
            shown = FileOut.of(file)
            keep_response(db, request, shown)
            return shown

        return await run_in_threadpool(keep, caller.project_id, form, upload, show)


@router.get("", response_model_exclude_none=True)
def list_files(
    caller: CurrentCaller,
    db: Db,
    purpose: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=0, le=10_000)] = 10_000,
    order: files.Order = "desc",
    after: Cursor = None,
) -> FileList:
    """The project's files by age."""
    page = files.list_files(db, caller.project_id, purpose=purpose, order=order, after=after, limit=limit)
    return FileList.of(page)


@router.get("/{file_id}", response_model_exclude_none=True)
def retrieve_file(file_id: str, caller: CurrentCaller, db: Db) -> FileOut:
    return FileOut.of(files.get(db, caller.project_id, file_id))


@router.delete("/{file_id}")
def delete_file(file_id: str, caller: CurrentCaller, db: Db) -> FileDeleted:
    """Delete a file. One that an unfinished job uses stays: 400."""
    files.remove(db, caller.project_id, file_id)
    return FileDeleted(id=file_id)


@router.get(
    "/{file_id}/content", response_class=StreamingResponse, responses=binary("application/octet-stream")
)
def file_content(file_id: str, caller: CurrentCaller, db: Db) -> StreamingResponse:
    """The bytes as they were uploaded or produced."""
    return sent(files.get(db, caller.project_id, file_id))
