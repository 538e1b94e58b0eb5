"""/v1/fine_tuning/jobs/{job_id}/events and /metrics"""

from __future__ import annotations

from fastapi import APIRouter

from app.auth import CurrentCaller, Db
from app.events import service as events
from app.events.schemas import EventList, StepMetricsList
from app.jobs import service as jobs
from app.pagination import Cursor, Limit

router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}", tags=["fine-tuning"])


@router.get("/events")
def list_events(
    job_id: str, caller: CurrentCaller, db: Db, after: Cursor = None, limit: Limit = 20
) -> EventList:
    """The job's log, newest first."""
    job = jobs.get(db, caller.project_id, job_id)
    return EventList.of(events.list_events(db, job.id, after=after, limit=limit))


@router.get("/metrics", openapi_extra={"x-cherry": True})
def list_metrics(
    job_id: str, caller: CurrentCaller, db: Db, after: Cursor = None, limit: Limit = 1000
) -> StepMetricsList:
    """Every number of every step, first step first. `after` is a step."""
    job = jobs.get(db, caller.project_id, job_id)
    return StepMetricsList.of(events.list_metrics(db, job.id, after=after, limit=limit))
