"""Serves the page of one job."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.cards.points import points
from app.checkpoints import service as checkpoint_service
from app.dashboard import sign_in
from app.dashboard.job import queries
from app.dashboard.job.drawn import charts
from app.dashboard.job.frontier_chart import frontier_chart
from app.dashboard.shown import page, to_login
from app.db import unit_of_work
from app.jobs import service as jobs
from app.jobs.models import TERMINAL

router = APIRouter()


@router.get("/jobs/{job_id}")
def overview(request: Request, job_id: str) -> Response:
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login()
        job = jobs.get(db, project.id, job_id)
        events = queries.events(db, job_id)
        return page(
            request,
            project,
            "job/job.html",
            job=job,
            charts=[*charts(queries.series(db, job_id)), frontier_chart(points(db, job))],
            checkpoints=queries.checkpoints(db, job_id),
            delivered=checkpoint_service.delivered(db, job),
            events=events,
            tools=next((event.data["tools"] for event in events if event.data.get("tools")), []),
            refresh=job.status not in TERMINAL,
        )
