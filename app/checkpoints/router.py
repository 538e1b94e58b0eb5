"""Serves /v1/fine_tuning/jobs/{job_id}/checkpoints."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from app.cards import service as cards
from app.checkpoints import service as checkpoints
from app.checkpoints.schemas import CheckpointList
from app.db import unit_of_work
from app.http.openapi import binary
from app.http.transaction import CurrentCaller, Db, KeptRoute
from app.jobs import service as jobs
from app.pagination import Cursor, Limit
from app.settings import get_settings
from app.storage import get_storage

router = APIRouter(
    prefix="/v1/fine_tuning/jobs/{job_id}/checkpoints", tags=["fine-tuning"], route_class=KeptRoute
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
    return CheckpointList.of(page, names, checkpoints.metrics_of(db, page.rows))


@router.get(
    "/{checkpoint_id}/download",
    response_class=StreamingResponse,
    responses=binary("application/x-tar"),
    openapi_extra={"x-cherry": True},
)
def download_checkpoint(job_id: str, checkpoint_id: str, caller: CurrentCaller) -> StreamingResponse:
    """A tar of the checkpoint's files, which were checked, and a manifest with their SHA-256 sums; of a job
    that is over also its card."""
    with unit_of_work() as db:
        job = jobs.get(db, caller.project_id, job_id)
        checkpoint = checkpoints.get_kept(db, job.id, checkpoint_id)
        beside = cards.beside_download(db, job, get_settings())
    download = checkpoints.open_download(checkpoint, get_storage(), beside)
    headers = {
        "content-disposition": f'attachment; filename="{download.filename}"',
        "content-length": str(download.size),
    }
    return StreamingResponse(download.chunks, media_type="application/x-tar", headers=headers)
