"""Serves /v1/fine_tuning/jobs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from app.auth import Caller
from app.db import unit_of_work
from app.errors import ApiError
from app.http.joint_reads import JointReads
from app.http.metadata_filter import metadata_filter
from app.http.transaction import CurrentCaller, Db, KeptRoute, PolledRoute
from app.jobs import capacity
from app.jobs import service as jobs
from app.jobs.models import Job
from app.jobs.schemas import JobCreate, JobList, JobOut
from app.pagination import Cursor, Limit
from app.settings import get_settings

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"], route_class=KeptRoute)

Asked = tuple[Caller, str]
"""Who asks, and for which job."""


@router.post("")
def create_job(request: JobCreate, caller: CurrentCaller, db: Db) -> JobOut:
    """Start a fine-tuning job; without `method`, a supervised one."""
    settings = get_settings()
    job = jobs.create(
        db,
        caller.project_id,
        request,
        max_active=settings.max_active_jobs,
        max_processes=capacity.max_processes(settings),
        max_gpus=capacity.max_gpus(settings),
    )
    return _shown(job, caller)


def further_refusals(body: dict[str, Any], caller: Caller) -> list[ApiError]:
    """Returns what else is wrong with a body whose form is wrong."""
    with unit_of_work() as db:
        return jobs.further_refusals(db, caller.project_id, body)


@router.get("")
def list_jobs(
    request: Request, caller: CurrentCaller, db: Db, after: Cursor = None, limit: Limit = 20
) -> JobList:
    """Jobs, newest first. `metadata[key]=value` filters; `metadata=null` finds jobs without any."""
    wanted = metadata_filter(request)
    page = jobs.list_jobs(db, caller.project_id, metadata=wanted, after=after, limit=limit)
    return JobList.of(page, caller.organization_id, paused_as=get_settings().report_paused_as)


async def retrieve_job(request: Request, job_id: str, caller: CurrentCaller) -> Response:
    reads: JointReads[Asked, bytes] = request.app.state.job_reads
    shown = await reads.get((caller, job_id))
    if shown is None:
        raise jobs.not_found(job_id)
    return Response(shown, media_type="application/json")


router.add_api_route(
    "/{job_id}", retrieve_job, methods=["GET"], response_model=JobOut, route_class_override=PolledRoute
)


def read_jobs(db: Session, asked: Collection[Asked]) -> dict[Asked, bytes]:
    """Returns what `retrieve_job` responds with, for many at once."""
    found = jobs.get_several(db, {(caller.project_id, job_id) for caller, job_id in asked})
    return {
        (caller, job_id): _shown(job, caller).model_dump_json().encode()
        for caller, job_id in asked
        if (job := found.get((caller.project_id, job_id)))
    }


@router.post("/{job_id}/cancel")
def cancel_job(job_id: str, caller: CurrentCaller, db: Db) -> JobOut:
    """Stop a job. A running one stops at its next step and keeps its checkpoints."""
    return _shown(jobs.cancel(db, caller.project_id, job_id), caller)


@router.post("/{job_id}/pause")
def pause_job(job_id: str, caller: CurrentCaller, db: Db) -> JobOut:
    """Pause a job. A running one saves itself and a checkpoint at its next step, and frees its device.

    The answer never says `paused`, which OpenAI's client does not know: a job that is paused at once is shown
    as it was, queued.
    """
    job = jobs.pause(db, caller.project_id, job_id)
    return JobOut.of(job, caller.organization_id, paused_as="queued")


@router.post("/{job_id}/resume")
def resume_job(job_id: str, caller: CurrentCaller, db: Db) -> JobOut:
    """Queue a paused job again; it goes on from where it was. A pause under way is withdrawn."""
    return _shown(jobs.resume(db, caller.project_id, job_id), caller)


def _shown(job: Job, caller: Caller) -> JobOut:
    return JobOut.of(job, caller.organization_id, paused_as=get_settings().report_paused_as)
