"""Serves the page of one job: curves, what it has come to, live news, and what its owner may ask of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.cards.points import points
from app.checkpoints import service as checkpoint_service
from app.dashboard import sign_in
from app.dashboard.job import curves as drawing
from app.dashboard.job import queries
from app.dashboard.job.frontier_chart import frontier_chart
from app.dashboard.job.state import state
from app.dashboard.shown import FROM_HERE, page, to_login
from app.db import unit_of_work
from app.errors import BadRequest, Unauthorized, Unavailable
from app.events import service as event_log
from app.events.feed import Feed
from app.jobs import service as jobs
from app.jobs.models import TERMINAL, Job
from app.pagination import Number
from app.settings import get_settings

router = APIRouter()


@router.get("/jobs/{job_id}")
def overview(request: Request, job_id: str) -> Response:
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login()
        job = jobs.get(db, project.id, job_id)
        return page(request, project, "job/job.html", **_shown(db, job))


@router.get("/jobs/{job_id}/now")
def now(request: Request, job_id: str, has: str = "") -> Response:
    """Shows what changes while a job runs, for htmx to put in place.

    `has` says which buttons the page shows: they are not put anew under somebody's hand.
    """
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        job = jobs.get(db, project.id, job_id)
        return page(request, project, "job/now.html", is_part=True, has=has, **_shown(db, job))


@router.get("/jobs/{job_id}/curves")
def curves(request: Request, job_id: str, since: Number = None) -> Response:
    """Returns the job's curves as JSON; those behind the step `since`, if one is named."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            raise Unauthorized("Sign in to see this.")
        job = jobs.get(db, project.id, job_id)
        found = drawing.curves(db, job, -1 if since is None else since)
    return JSONResponse(found)


@router.get("/jobs/{job_id}/live")
async def live(request: Request, job_id: str, after: Number = None) -> Response:
    """Follows the job's log as server-sent events, and counts among the followers of the API's stream."""
    feed: Feed = request.app.state.feed
    most = get_settings().max_followers
    if feed.followers >= most:
        message = f"{most} clients follow jobs on this server, and that is the maximum. Try again later."
        raise Unavailable(message, headers={"retry-after": "30"})
    last_event_id = request.headers.get("last-event-id")
    place, is_over = await run_in_threadpool(_place, request, job_id, after, last_event_id)
    if is_over:
        return Response(status_code=204)  # tells a browser not to come again
    headers = {"x-accel-buffering": "no"}
    return StreamingResponse(feed.follow(job_id, place), media_type="text/event-stream", headers=headers)


def _place(request: Request, job_id: str, after: int | None, last_event_id: str | None) -> tuple[int, bool]:
    """Returns the number of the event behind which a follower goes on, and whether nothing will follow."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            raise Unauthorized("Sign in to see this.")
        job = jobs.get(db, project.id, job_id)
        asked = None if after is None else str(after)
        place = event_log.place(db, job, after=asked, last_event_id=last_event_id)
        return place, job.status in TERMINAL and place >= job.last_seq


@router.post("/jobs/{job_id}/pause", dependencies=FROM_HERE)
def pause(request: Request, job_id: str) -> Response:
    return _asked(request, job_id, jobs.pause)


@router.post("/jobs/{job_id}/resume", dependencies=FROM_HERE)
def resume(request: Request, job_id: str) -> Response:
    return _asked(request, job_id, jobs.resume)


@router.post("/jobs/{job_id}/cancel", dependencies=FROM_HERE)
def cancel(request: Request, job_id: str) -> Response:
    return _asked(request, job_id, jobs.cancel)


def _asked(request: Request, job_id: str, ask: Callable[[Session, str, str], Job]) -> Response:
    """Asks something of a job, and shows it again, with the reason if it cannot be done."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        try:
            job, problem = ask(db, project.id, job_id), ""
        except BadRequest as refusal:
            job, problem = jobs.get(db, project.id, job_id), refusal.message
        if request.headers.get("hx-request"):
            return page(request, project, "job/now.html", is_part=True, problem=problem, **_shown(db, job))
        if problem:
            shown = _shown(db, job)
            return page(request, project, "job/job.html", status_code=400, problem=problem, **shown)
    return RedirectResponse(f"/dashboard/jobs/{job_id}", status_code=303)


def _shown(db: Session, job: Job) -> dict[str, Any]:
    events = queries.events(db, job.id)
    checkpoints = queries.checkpoints(db, job.id)
    return {
        "job": job,
        "state": state(db, job, checkpoints),
        "is_over": job.status in TERMINAL,
        "frontier": frontier_chart(points(db, job)),
        "checkpoints": checkpoints,
        "delivered": checkpoint_service.delivered(db, job),
        "events": events,
        "is_rewarded": job.method["type"] == "reinforcement",
        "tools": next((event.data["tools"] for event in events if event.data.get("tools")), []),
    }
