"""Serves /v1/uploads."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from app.auth import Caller
from app.db import unit_of_work
from app.errors import BadRequest
from app.files import receive
from app.files.receive import receive_upload
from app.http.transaction import CurrentCaller, Db, KeptRoute, claim_form, keep_response, state_of
from app.ids import random_id
from app.settings import get_settings
from app.storage import get_storage
from app.uploads import service as uploads
from app.uploads.schemas import PartOut, UploadComplete, UploadCreate, UploadOut
from app.uploads.service import ChecksumDiffers, Finished, Plan

router = APIRouter(prefix="/v1/uploads", tags=["uploads"], route_class=KeptRoute)

FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["data"],
                "properties": {"data": {"type": "string", "format": "binary"}},
            }
        }
    },
}


@router.post("", response_model_exclude_none=True)
def create_upload(request: UploadCreate, caller: CurrentCaller, db: Db) -> UploadOut:
    """Announce a file that arrives in parts within the hour, at most 8 GB."""
    settings = get_settings()
    return UploadOut.of(uploads.create(db, caller.project_id, request, max_bytes=settings.max_upload_bytes))


@router.get("/{upload_id}", response_model_exclude_none=True, openapi_extra={"x-cherry": True})
def retrieve_upload(upload_id: str, caller: CurrentCaller, db: Db) -> UploadOut:
    """How far an upload is."""
    found = uploads.finished(db, uploads.get(db, caller.project_id, upload_id))
    return UploadOut.of(found.upload, found.file)


@router.post("/{upload_id}/parts", response_model=PartOut, openapi_extra={"requestBody": FORM})
async def add_part(upload_id: str, request: Request, caller: CurrentCaller) -> PartOut | Response:
    """Add at most 64 MB. Parts may come side by side: completing gives them their order."""
    if state_of(request.scope).keyed is None:  # else it may be over, and this a repetition
        await run_in_threadpool(_check_open, caller, upload_id)
    spool = get_settings().data_dir / "uploads"
    async with receive_upload(request, spool, uploads.MAX_PART_BYTES, field="data") as part:
        if earlier := await claim_form(request, part.parameters()):
            return earlier
        return await run_in_threadpool(_keep_part, caller, request, upload_id, part)


def _check_open(caller: Caller, upload_id: str) -> None:
    """Refuses an upload that is over before the bytes are taken off the wire."""
    with unit_of_work() as db:
        uploads.check_open(uploads.get(db, caller.project_id, upload_id), "it takes no more parts")


def _keep_part(caller: Caller, request: Request, upload_id: str, part: receive.Upload) -> PartOut:
    if part.size == 0:
        raise BadRequest("The part is empty.", param="data")
    part_id = random_id("part_")
    key = uploads.part_key(upload_id, part_id)
    get_storage().put_file(key, part.path, move=True)
    try:
        with unit_of_work() as db:
            shown = PartOut.of(uploads.add_part(db, caller.project_id, upload_id, part_id, part.size))
            keep_response(db, request, shown)
            return shown
    except BaseException:
        get_storage().delete(key)
        raise


def known(upload_id: str, caller: CurrentCaller) -> None:
    """Refuses an upload that is not there. A dependency is asked before the body is looked at."""
    with unit_of_work() as db:
        uploads.get(db, caller.project_id, upload_id)


@router.post("/{upload_id}/complete", response_model_exclude_none=True, dependencies=[Depends(known)])
def complete_upload(
    upload_id: str, body: UploadComplete, request: Request, caller: CurrentCaller
) -> UploadOut:
    """Put the parts together, in the order given, as a file. Doing the same twice gives the same file."""
    found = _plan(caller, upload_id, body.part_ids)
    if isinstance(found, Plan):
        found = _put_together(caller, request, found, body.md5)
    return UploadOut.of(found.upload, found.file)


def _plan(caller: Caller, upload_id: str, part_ids: Sequence[str]) -> Plan | Finished:
    with unit_of_work() as db:
        return uploads.plan(db, caller.project_id, upload_id, part_ids)


def _put_together(caller: Caller, request: Request, plan: Plan, md5: str | None) -> Finished:
    """Stores the bytes, then makes the row. Bytes that get no row are taken away again."""
    try:
        stored = uploads.compose(plan, md5)
    except ChecksumDiffers as fault:
        raise BadRequest(str(fault), param="md5", code="invalid_value") from None
    except FileNotFoundError:  # it has ended in the meantime; perhaps this very call was made twice
        found = _plan(caller, plan.upload_id, plan.part_ids)
        if isinstance(found, Plan):
            raise
        return found
    done: Finished | None = None
    try:
        with unit_of_work() as db:
            found = uploads.complete(db, caller.project_id, plan, stored)
            keep_response(db, request, UploadOut.of(found.upload, found.file))
        done = found
    finally:
        if done is None or done.upload.file_id != stored.file_id:
            get_storage().delete(stored.key)
    return done


@router.post("/{upload_id}/cancel", response_model_exclude_none=True)
def cancel_upload(upload_id: str, caller: CurrentCaller, db: Db) -> UploadOut:
    """Give an upload up; its parts are deleted."""
    return UploadOut.of(uploads.cancel(db, caller.project_id, upload_id))
