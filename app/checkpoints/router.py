"""Serves /v1/fine_tuning/jobs/{job_id}/checkpoints."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from app.checkpoints import service as checkpoints
from app.checkpoints.download import sent
from app.checkpoints.schemas import CheckpointList, CheckpointOut
from app.exports import service as exports
from app.exports.schemas import ExportOut
from app.exports.use import Format
from app.http.openapi import ranged
from app.http.transaction import CurrentCaller, Db, KeptRoute
from app.jobs import service as jobs
from app.pagination import Cursor, Limit
from app.storage import get_storage

router = APIRouter(
    prefix="/v1/fine_tuning/jobs/{job_id}/checkpoints", tags=["fine-tuning"], route_class=KeptRoute
)

by_name = APIRouter(
    prefix="/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}",
    tags=["fine-tuning"],
    route_class=KeptRoute,
)


@router.get("")
def list_checkpoints(
    job_id: str, caller: CurrentCaller, db: Db, after: Cursor = None, limit: Limit = 10
) -> CheckpointList:
    """The kept checkpoints, highest step first."""
    job = jobs.get(db, caller.project_id, job_id)
    delivered = checkpoints.delivered(db, job)
    page = checkpoints.list_kept(db, job.id, delivered=delivered, after=after, limit=limit)
    names = {delivered: job.fine_tuned_model} if delivered and job.fine_tuned_model else {}
    downloads = exports.offers(db, job, page.rows, get_storage())
    return CheckpointList.of(page, names, checkpoints.metrics_of(db, page.rows), downloads)


@by_name.get("", openapi_extra={"x-cherry": True})
def retrieve_checkpoint(fine_tuned_model_checkpoint: str, caller: CurrentCaller, db: Db) -> CheckpointOut:
    """A kept checkpoint of the project, by its id, its name, or that of the model which was delivered."""
    job, checkpoint = checkpoints.find_kept(db, caller.project_id, fine_tuned_model_checkpoint)
    is_delivered = checkpoints.delivered(db, job) == checkpoint.id
    name = str(job.fine_tuned_model) if is_delivered else checkpoint.model_name
    downloads = exports.offers(db, job, [checkpoint], get_storage())
    values = checkpoints.metrics_of(db, [checkpoint])
    return CheckpointOut.of(checkpoint, name, values[checkpoint.id], downloads[checkpoint.id])


@router.get(
    "/{checkpoint_id}/download",
    response_class=StreamingResponse,
    responses=ranged("application/x-tar") | {202: {"model": ExportOut, "description": "It is being made."}},
    response_model=None,
    openapi_extra={"x-cherry": True},
)
def download_checkpoint(
    job_id: str,
    checkpoint_id: str,
    caller: CurrentCaller,
    request: Request,
    format: Annotated[Format | None, Query(description="Left out: all files as they were stored.")] = None,
) -> Response:
    """A tar of the checkpoint's files, which were checked, and a manifest with their SHA-256 sums; of a job
    that is over also its card. It may be asked for in parts. 202 while a worker makes the form."""
    answer = sent(caller.project_id, job_id, checkpoint_id, format, request.headers)
    if isinstance(answer, ExportOut):
        return JSONResponse(answer.model_dump(), 202, {"retry-after": str(exports.RETRY_SECONDS)})
    return answer
