"""Serves the page that holds jobs side by side."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.cards.points import Point, points
from app.dashboard import sign_in
from app.dashboard.compare.curves import charts
from app.dashboard.compare.settings_of_jobs import settings_of
from app.dashboard.shown import page, to_login
from app.db import unit_of_work
from app.errors import BadRequest
from app.jobs import service as jobs
from app.jobs.models import Job

MOST = 6
OFFERED = 50
"""Newest jobs that can be chosen on the page."""

router = APIRouter()
JobIds = Annotated[list[str], Query(max_length=50)]


class Outcome(NamedTuple):
    """What a job has come to: its base and its delivered checkpoint."""

    job: Job
    base: Point | None
    delivered: Point | None


@router.get("/compare")
def compare(request: Request, jobs: JobIds = []) -> Response:  # noqa: B006 (FastAPI copies it)
    """Shows the jobs that the query names, and lets others be chosen."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        wanted = list(dict.fromkeys(jobs))
        chosen = _chosen(db, project.id, wanted[:MOST])
        recent = select(Job).where(Job.project_id == project.id)
        offered = db.scalars(recent.order_by(Job.created_at.desc(), Job.id.desc()).limit(OFFERED)).all()
        return page(
            request,
            project,
            "compare/compare.html",
            chosen=chosen,
            ids=[job.id for job in chosen],
            offered=[*chosen, *(job for job in offered if job not in chosen)],
            too_many=len(wanted) > MOST,
            most=MOST,
            outcomes=[_outcome(db, job) for job in chosen],
            charts=charts(db, [job.id for job in chosen]),
            settings=settings_of(chosen) if chosen else None,
        )


@router.get("/compare/curves")
def curves(request: Request, jobs: JobIds = []) -> Response:  # noqa: B006
    """Returns the curves of jobs as JSON, as the page draws them."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        wanted = list(dict.fromkeys(jobs))
        if len(wanted) > MOST:
            raise BadRequest(f"At most {MOST} jobs are compared at a time.", param="jobs")
        chosen = _chosen(db, project.id, wanted)
        drawn = charts(db, [job.id for job in chosen])
        told = {
            "jobs": [job.suffix or job.id for job in chosen],
            "charts": [{"title": chart.title, "lines": chart.lines} for chart in drawn],
        }
    return JSONResponse(told)


def _chosen(db: Session, project_id: str, job_ids: list[str]) -> list[Job]:
    return [jobs.get(db, project_id, job_id) for job_id in job_ids]


def _outcome(db: Session, job: Job) -> Outcome:
    found = points(db, job)
    base = next((point for point in found if point.checkpoint.step == 0), None)
    return Outcome(job, base, next((point for point in found if point.is_delivered), None))
