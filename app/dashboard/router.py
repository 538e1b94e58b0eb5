"""The dashboard's pages. A key signs in; its project's rows are all that is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from markupsafe import Markup

from app.cards.points import points
from app.checkpoints import service as checkpoint_service
from app.dashboard import queries, sign_in
from app.dashboard.charts import Line, line_chart
from app.dashboard.frontier_chart import frontier_chart
from app.db import unit_of_work
from app.errors import NotFound
from app.evals import run_service as eval_runs
from app.evals import service as evals
from app.evals.models import ACTIVE as ACTIVE_RUN
from app.evals.models import ItemStatus
from app.jobs.models import TERMINAL
from app.pagination import Cursor, Number
from app.rollouts.service import Split
from app.tenants.models import Project
from methods import metrics as names

HERE = Path(__file__).parent
REFERRER = {"referrer-policy": "same-origin"}
"""With the edge's `no-referrer` a browser would not say where a form comes from."""
FROM_HERE = [Depends(sign_in.check_origin)]

router = APIRouter(prefix="/dashboard", include_in_schema=False)
static = StaticFiles(directory=HERE / "static")
templates = Jinja2Templates(directory=HERE / "templates")


@router.get("/login")
def login_page(request: Request) -> Response:
    return door(request)


@router.post("/login", dependencies=FROM_HERE)
def login(request: Request, key: Annotated[str, Form(max_length=512)]) -> Response:
    """Opens a session for a key. The session before, if the browser has one, is over."""
    grant = sign_in.attempt(request)
    if not grant.is_granted:
        return door(request, f"Too many wrong keys. Try again in {math.ceil(grant.wait)} s.", 429, grant.wait)
    with unit_of_work() as db:
        token = sign_in.begin(db, key.strip())
        if token is None:
            return door(request, "That key is not known here, or it was revoked.", 401)
        sign_in.end(request, db)
    sign_in.succeeded(request)
    response = RedirectResponse("/dashboard", status_code=303)
    sign_in.set_cookie(request, response, token)
    return response


@router.post("/logout", dependencies=FROM_HERE)
def logout(request: Request) -> Response:
    with unit_of_work() as db:
        sign_in.end(request, db)
    response = to_login()
    response.delete_cookie(sign_in.COOKIE, path=sign_in.PATH)
    return response


@router.get("")
def jobs_page(request: Request, after: Cursor = None) -> Response:
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
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
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login()
        job = queries.job(db, project.id, job_id)
        if job is None:
            raise NotFound(f"No such job: {job_id}")
        series = queries.series(db, job_id)
        events = queries.events(db, job_id)
        return page(
            request,
            project,
            "job.html",
            job=job,
            charts=[*charts(series), frontier_chart(points(db, job))],
            checkpoints=queries.checkpoints(db, job_id),
            delivered=checkpoint_service.delivered(db, job),
            events=events,
            tools=next((event.data["tools"] for event in events if event.data.get("tools")), []),
            refresh=job.status not in TERMINAL,
        )


def charts(series: queries.Series) -> list[Markup]:
    """Draws reward, KL, entropy, length, thoughts and turns over steps.

    For supervised and dpo jobs it draws loss, accuracy and KL.
    """

    def line(label: str, style: str, name: str) -> Line:
        return Line(label, style, series.get(name, []))

    def both(name: str) -> list[Line]:
        splits = (("train", "a", "train"), ("validation", "b", "valid"))
        lines = [line(label, style, name.format(split=split)) for label, style, split in splits]
        return lines if any(value for each in lines for _, value in each.points) else []

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
    gap = [
        line("gap", "a", names.GOLD_GAP),
        line("95 %, from", "b", names.GOLD_GAP_LOW),
        line("to", "b", names.GOLD_GAP_HIGH),
    ]
    marks = guard_marks(series.get(names.GUARD_ACTIONS, []))
    return [
        line_chart("Reward", reward, marks),
        line_chart("Gap to the gold grader, share of range", gap, marks),
        line_chart("KL to base, nats/token", kl, marks),
        line_chart("Entropy, nats/token", [line("train", "a", names.ENTROPY_MEAN)]),
        line_chart(
            "Completion length, tokens",
            [line("train", "a", names.COMPLETION_TOKENS_MEAN.format(split="train"))],
        ),
        line_chart("Thoughts, tokens", both(names.REASONING_TOKENS_MEAN)),
        line_chart("Turns of an episode", both(names.EPISODE_TURNS)),
    ]


def guard_marks(actions: Sequence[tuple[int, float]]) -> dict[int, str]:
    """Returns a text for each step at which the guard acted, from the number of its actions by step."""
    before = [0.0, *(count for _, count in actions)]
    risen = [(step, count) for (step, count), last in zip(actions, before, strict=False) if count > last]
    return {step: f"Step {step}: action {count:.0f} of the guard; see the events" for step, count in risen}


@router.get("/jobs/{job_id}/rollouts")
def rollouts_page(request: Request, job_id: str, split: Split = "train", step: Number = None) -> Response:
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login()
        job = queries.job(db, project.id, job_id)
        if job is None:
            raise NotFound(f"No such job: {job_id}")
        here = queries.rollouts(db, job_id, split, step)
        return page(request, project, "rollouts.html", job=job, split=split, **here)


@router.get("/evals/{eval_id}/runs/{run_id}")
def eval_run_page(
    request: Request, eval_id: str, run_id: str, status: ItemStatus | None = None, after: Cursor = None
) -> Response:
    """Shows a run of an eval: where the `report_url` of a run leads."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login()
        run, shown = eval_runs.list_items(
            db, project.id, eval_id, run_id, status=status, after=after, limit=queries.ROLLOUTS, order="asc"
        )
        return page(
            request,
            project,
            "eval_run.html",
            eval=evals.get(db, project.id, eval_id),
            run=run,
            items=shown.rows,
            more=shown.has_more,
            status=status,
            refresh=run.status in ACTIVE_RUN,
        )


def to_login() -> Response:
    return RedirectResponse("/dashboard/login", status_code=303)


def door(request: Request, problem: str = "", status: int = 200, retry_after: float = 0) -> Response:
    """Returns the page to sign in at, with what was wrong with the last attempt."""
    headers = REFERRER | ({"retry-after": str(math.ceil(retry_after))} if retry_after else {})
    values = {"problem": problem}
    return templates.TemplateResponse(request, "login.html", values, status_code=status, headers=headers)


def page(request: Request, project: Project, template: str, **values: object) -> Response:
    shown = {"project": project.name, **values}
    return templates.TemplateResponse(request, template, shown, headers=REFERRER)
