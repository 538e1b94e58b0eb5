"""Serves /v1/fine_tuning/jobs/{job_id}/events and /metrics."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse

from app.errors import Unavailable
from app.events import service as events
from app.events.feed import Feed
from app.events.schemas import EventList, StepMetricsList
from app.http.transaction import CurrentCaller, Db, KeptRoute
from app.jobs import service as jobs
from app.jobs.models import TERMINAL
from app.pagination import Cursor, Limit
from app.settings import get_settings

router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}", tags=["fine-tuning"], route_class=KeptRoute)


LastEventId = Annotated[
    str | None, Header(max_length=64, description="Cherry: number of the last event seen.")
]
Stream = Annotated[
    bool,
    Query(
        description="Cherry: follow the job as server-sent events, oldest first, from `after` on.",
        json_schema_extra={"x-cherry": True},
    ),
]
SENT_EVENT = {
    "type": "object",
    "description": "One server-sent event; `data` holds the JSON of an event of the job, or [DONE].",
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
    "required": ["data"],
}
EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": SENT_EVENT}}},
    204: {"description": "Cherry: with Last-Event-ID, the job is over and has no more events."},
}


@router.get("/events", response_model=EventList, responses=EVENT_STREAM)
def list_events(
    request: Request,
    job_id: str,
    caller: CurrentCaller,
    db: Db,
    after: Cursor = None,
    limit: Limit = 20,
    stream: Stream = False,
    last_event_id: LastEventId = None,
) -> EventList | Response:
    """The job's log, newest first; or, with `stream`, live (docs/extensions.md)."""
    job = jobs.get(db, caller.project_id, job_id)
    if not stream:
        return EventList.of(events.list_events(db, job.id, after=after, limit=limit))
    feed: Feed = request.app.state.feed
    most = get_settings().max_followers
    if feed.followers >= most:
        message = f"{most} clients follow jobs on this server, and that is the maximum. Try again later."
        raise Unavailable(message, headers={"retry-after": "30"})
    place = events.place(db, job, after=after, last_event_id=last_event_id)
    if last_event_id is not None and job.status in TERMINAL and place >= job.last_seq:
        return Response(status_code=204)  # tells a browser's EventSource not to come again
    headers = {"x-accel-buffering": "no"}
    return StreamingResponse(feed.follow(job.id, place), media_type="text/event-stream", headers=headers)


@router.get("/metrics", openapi_extra={"x-cherry": True})
def list_metrics(
    job_id: str, caller: CurrentCaller, db: Db, after: Cursor = None, limit: Limit = 1000
) -> StepMetricsList:
    """Every number of every step, first step first. `after` is a step."""
    job = jobs.get(db, caller.project_id, job_id)
    return StepMetricsList.of(events.list_metrics(db, job.id, after=after, limit=limit))
