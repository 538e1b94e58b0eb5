"""Serves the first page: a project's jobs, those that run, those that wait and those that are over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from app.dashboard import sign_in
from app.dashboard.home import queries
from app.dashboard.home.machine import machine
from app.dashboard.home.queries import MethodFilter, StatusFilter, Wanted
from app.dashboard.home.spark import spark
from app.dashboard.shown import NAVIGATION, page, to_login
from app.db import unit_of_work
from app.jobs.models import Job
from app.pagination import Cursor
from app.settings import get_settings

router = APIRouter()

Text = Annotated[str, Query(max_length=100)]


@router.get("")
def home(
    request: Request,
    after: Cursor = None,
    status: StatusFilter | Literal[""] = "",
    method: MethodFilter | Literal[""] = "",
    q: Text = "",
) -> Response:
    wanted = Wanted(status or None, method or None, q.strip())
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        lists = _lists(db, project.id, wanted, after)
        return page(
            request,
            project,
            "home/home.html",
            wanted=wanted,
            is_first_time=not queries.has_jobs(db, project.id),
            can_create=next((link.path for link in NAVIGATION if link.name == "New job"), None),
            **lists,
        )


@router.get("/machine")
def this_machine(request: Request) -> Response:
    """Shows workers, devices and disk, for htmx to put in place: looking at devices may take a moment."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        return page(request, project, "home/machine.html", machine=machine(db, get_settings()))


def _lists(db: Session, project_id: str, wanted: Wanted, after: str | None) -> dict[str, Any]:
    """Returns the jobs by list, and what is told of each."""
    active: list[Job] = []
    if wanted.is_everything:
        active = queries.active(db, project_id) if after is None else []
        rows, older = queries.ended(db, project_id, after)
    else:
        rows, older = queries.matching(db, project_id, wanted, after)
    waiting = [job for job in active if job.status in ("queued", "validating_files")]
    shown: Sequence[Job] = [*active, *rows]
    return {
        "running": [job for job in active if job not in waiting],
        "waiting": waiting,
        "places": {job.id: place for place, job in enumerate(_queued(waiting), start=1)},
        "jobs": rows,
        "older": older,
        "rewards": queries.rewards(db, shown),
        "sparks": {job_id: spark(values) for job_id, values in queries.sparks(db, shown).items()},
        "reasons": queries.reasons(db, shown),
        "is_live": bool(active)
        or any(job.status not in ("succeeded", "failed", "cancelled") for job in rows),
    }


def _queued(waiting: Sequence[Job]) -> list[Job]:
    return [job for job in waiting if job.status == "queued"]
