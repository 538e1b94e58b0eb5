"""Serves the completions of a job, step by step."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.dashboard import sign_in
from app.dashboard.samples import queries
from app.dashboard.shown import page, to_login
from app.db import unit_of_work
from app.jobs import service as jobs
from app.pagination import Number
from app.rollouts.service import Split

router = APIRouter()


@router.get("/jobs/{job_id}/rollouts")
def samples(request: Request, job_id: str, split: Split = "train", step: Number = None) -> Response:
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login()
        job = jobs.get(db, project.id, job_id)
        here = queries.rollouts(db, job_id, split, step)
        return page(request, project, "samples/samples.html", job=job, split=split, **here)
