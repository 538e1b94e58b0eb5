"""Serves the first page: a project's jobs."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.dashboard import sign_in
from app.dashboard.home import queries
from app.dashboard.shown import page, to_login
from app.db import unit_of_work
from app.jobs.models import TERMINAL
from app.pagination import Cursor

router = APIRouter()


@router.get("")
def home(request: Request, after: Cursor = None) -> Response:
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login()
        jobs, older = queries.jobs(db, project.id, after)
        return page(
            request,
            project,
            "home/home.html",
            jobs=jobs,
            older=older,
            rewards=queries.rewards(db, jobs),
            refresh=any(job.status not in TERMINAL for job in jobs),
        )
