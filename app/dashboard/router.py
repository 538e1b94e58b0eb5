"""The dashboard's pages. A key signs in; its project's rows are all that is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from markupsafe import Markup
from sqlalchemy.orm import Session

from app.auth import project_of_key
from app.checkpoints import service as checkpoint_service
from app.dashboard import queries
from app.dashboard.charts import Line, line_chart
from app.db import unit_of_work
from app.errors import NotFound
from app.jobs.models import TERMINAL
from app.pagination import Cursor, Number
from app.rollouts.service import Split
from app.tenants.models import Project
from methods import metrics as names

HERE = Path(__file__).parent
COOKIE = "cherry_key"
SIGNED_IN_SECONDS = 12 * 3600

router = APIRouter(prefix="/dashboard", include_in_schema=False)
static = StaticFiles(directory=HERE / "static")
templates = Jinja2Templates(directory=HERE / "templates")


@router.get("/login")
def login_page(request: Request, wrong: bool = False) -> Response:
    return templates.TemplateResponse(request, "login.html", {"wrong": wrong})


@router.post("/login")
def login(request: Request, key: Annotated[str, Form(max_length=512)]) -> Response:
    with unit_of_work() as db:
        if project_of_key(db, key.strip()) is None:
            return templates.TemplateResponse(request, "login.html", {"wrong": True}, status_code=401)
    response = RedirectResponse("/dashboard", status_code=303)
    response.set_cookie(
        COOKIE,
        key.strip(),
        max_age=SIGNED_IN_SECONDS,
        path="/dashboard",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


@router.post("/logout")
def logout() -> Response:
    response = RedirectResponse("/dashboard/login", status_code=303)
    response.delete_cookie(COOKIE, path="/dashboard")
    return response


@router.get("")
def jobs_page(request: Request, after: Cursor = None) -> Response:
    with unit_of_work() as db:
        if (project := signed_in(request, db)) is None:
            return to_login()
        jobs, older = queries.jobs(db, project.id, after)
        return page(
            request,
            project,
            "jobs.html",
            jobs=jobs,
            older=older,
            rewards=queries.rewards(db, jobs),
            refresh=any(job.status not in TERMINAL for job in jobs),
        )


@router.get("/jobs/{job_id}")
def job_page(request: Request, job_id: str) -> Response:
    with unit_of_work() as db:
        if (project := signed_in(request, db)) is None:
            return to_login()
        job = queries.job(db, project.id, job_id)
        if job is None:
            raise NotFound(f"No such job: {job_id}")
        series = queries.series(db, job_id)
        return page(
            request,
            project,
            "job.html",
            job=job,
            charts=charts(series),
            checkpoints=queries.checkpoints(db, job_id),
            delivered=checkpoint_service.delivered(db, job),
            events=queries.events(db, job_id),
            refresh=job.status not in TERMINAL,
        )


def charts(series: queries.Series) -> list[Markup]:
    """Draws reward, KL, entropy and length over steps; for supervised and dpo jobs loss, accuracy and KL."""

    def line(label: str, style: str, name: str) -> Line:
        return Line(label, style, series.get(name, []))

    reward = [line("train", "a", names.REWARD_MEAN), line("validation", "b", names.VALID_REWARD_MEAN)]
    kl = [line("probe set", "a", names.KL_PROBE_MEAN), line("batch", "b", names.KL_REFERENCE)]
    if series.get(names.LOSS.format(split="train")):
        loss = [
            line("train", "a", names.LOSS.format(split="train")),
            line("validation", "b", names.LOSS.format(split="full_valid")),
        ]
        accuracy = [
            line("train", "a", names.ACCURACY.format(split="train")),
            line("validation", "b", names.ACCURACY.format(split="full_valid")),
        ]
        return [
            line_chart("Loss", loss),
            line_chart("Token accuracy", accuracy),
            line_chart("KL to base, nats/token", kl),
        ]
    return [
        line_chart("Reward", reward),
        line_chart("KL to base, nats/token", kl),
        line_chart("Entropy, nats/token", [line("train", "a", names.ENTROPY_MEAN)]),
        line_chart(
            "Completion length, tokens",
            [line("train", "a", names.COMPLETION_TOKENS_MEAN.format(split="train"))],
        ),
    ]


@router.get("/jobs/{job_id}/rollouts")
def rollouts_page(request: Request, job_id: str, split: Split = "train", step: Number = None) -> Response:
    with unit_of_work() as db:
        if (project := signed_in(request, db)) is None:
            return to_login()
        job = queries.job(db, project.id, job_id)
        if job is None:
            raise NotFound(f"No such job: {job_id}")
        here = queries.rollouts(db, job_id, split, step)
        return page(request, project, "rollouts.html", job=job, split=split, **here)


def signed_in(request: Request, db: Session) -> Project | None:
    """Returns the project whose key the cookie holds."""
    key = request.cookies.get(COOKIE)
    return project_of_key(db, key) if key else None


def to_login() -> Response:
    return RedirectResponse("/dashboard/login", status_code=303)


def page(request: Request, project: Project, template: str, **values: object) -> Response:
    return templates.TemplateResponse(request, template, {"project": project.name, **values})
