"""Serves the form of a new job: the page, its parts, and what its buttons do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from app.dashboard import sign_in
from app.dashboard.create import creation, draft, queries, trials, uploads, view
from app.dashboard.create.asking import Fields, address_of, caller_of
from app.dashboard.create.builder import Posted
from app.dashboard.create.problems import Problem, placed
from app.dashboard.shown import FROM_HERE, page, to_login
from app.db import unit_of_work
from app.errors import ApiError, NotFound, Unauthorized
from app.preflights import service as preflights
from app.preflights.models import ACTIVE
from app.tenants.models import Project

router = APIRouter(prefix="/new")
WHOLE, FORM, GRADER, SIDE, TRIED = (
    f"create/{name}.html" for name in ("new", "form", "grader_section", "side", "trials")
)
Action = Annotated[str, Query(max_length=400)]


@router.get("")
def new_job(
    request: Request, source: Annotated[str | None, Query(alias="from", max_length=64)] = None
) -> Response:
    """Shows an empty form, or one that is filled with the settings of a job."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        made = draft.of_posted([])
        if source is not None:
            job = queries.job(db, project.id, source)
            if job is None:
                raise NotFound(f"No such job: {source}")
            made = draft.of_job(job, project.organization_id)
        values = view.values_of(db, project.id, made, [], address_of(request))
        return page(request, project, WHOLE, source=source, **values)


@router.post("", dependencies=FROM_HERE)
def create(request: Request, fields: Fields) -> Response:
    """Starts the job, and shows it; or shows the form as it was, with what is wrong beside each field."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        db.expunge(project)
    made = draft.of_posted(fields)
    body, problems = made.body()
    if problems:
        return _shown(request, project, fields, FORM, problems)
    try:
        job_id = creation.create_job(project.id, body)
    except ApiError as refusal:
        found = placed(refusal.all, made.grader.form if made.method == "reinforcement" else None)
        return _shown(request, project, fields, FORM, found)
    if request.headers.get("hx-request"):
        return Response(headers={"hx-redirect": f"/dashboard/jobs/{job_id}"})
    return RedirectResponse(f"/dashboard/jobs/{job_id}", status_code=303)


@router.post("/form", dependencies=FROM_HERE)
def form(request: Request, fields: Fields) -> Response:
    """Shows the form again after a choice that changes what it has: the method, the model, a file."""
    return _part(request, fields, FORM)


@router.post("/grader", dependencies=FROM_HERE)
def grader(request: Request, fields: Fields) -> Response:
    """Shows the grader after one of its buttons was pressed."""
    return _part(request, fields, GRADER, dict(fields).get("do", ""))


@router.post("/side", dependencies=FROM_HERE)
def side(request: Request, fields: Fields) -> Response:
    """Shows what follows from the form: numbers that were left out, steps, and the same job as code."""
    return _part(request, fields, SIDE)


@router.post("/try", dependencies=FROM_HERE)
async def try_grader(request: Request, fields: Fields) -> Response:
    """Grades the answers that stand beside the first rows of the training file."""
    caller = await run_in_threadpool(caller_of, request)
    if caller is None:
        return to_login(request)
    made = draft.of_posted(fields)
    tried = await run_in_threadpool(_trials, caller.project_id, made, fields)
    asked = (trials.tried(caller, made.grader.value, one.answer, one.row.item) for one in tried)
    for one, result in zip(tried, await asyncio.gather(*asked), strict=True):
        one.result = result
    return await run_in_threadpool(_tried, request, made, tried)


@router.post("/upload", dependencies=FROM_HERE)
async def upload(request: Request) -> Response:
    """Takes a file, and tells the script of the page its id and name."""
    caller = await run_in_threadpool(caller_of, request)
    if caller is None:
        raise Unauthorized("Your session is over. Sign in again in another tab, then upload the file again.")
    file = await uploads.take(request, caller)
    return JSONResponse({"id": file.id, "filename": file.filename})


@router.post("/preflight", dependencies=FROM_HERE)
def preflight(request: Request, fields: Fields) -> Response:
    """Queues a look at what the job would meet, and shows how far it is."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        db.expunge(project)
    made = draft.of_posted(fields)
    body, problems = made.body()
    if not problems:
        try:
            made_id = creation.create_preflight(project.id, body)
        except ApiError as refusal:
            problems = placed(refusal.all, None)
        else:
            return preflight_part(request, made_id)
    return page(request, project, "create/preflight.html", preflight=None, problems=problems)


@router.get("/preflight/{preflight_id}")
def preflight_part(request: Request, preflight_id: str) -> Response:
    """Shows how far a preflight is, and what it has found."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        found = preflights.get(db, project.id, preflight_id)
        is_active = found.status in ACTIVE
        part = "create/preflight.html"
        return page(request, project, part, preflight=found, is_active=is_active, problems=[])


@router.post("/preflight/{preflight_id}/cancel", dependencies=FROM_HERE)
def cancel_preflight(request: Request, preflight_id: str) -> Response:
    """Stops a preflight; one that is over stays as it is."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        if preflights.get(db, project.id, preflight_id).status in ACTIVE:
            preflights.cancel(db, project.id, preflight_id)
    return preflight_part(request, preflight_id)


def _part(request: Request, fields: Posted, template: str, action: str = "") -> Response:
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        row = view.first_row(db, project.id, fields) if action else None
        made = draft.of_posted(fields, action, row)
        values = view.values_of(db, project.id, made, fields, address_of(request))
        return page(request, project, template, **values)


def _shown(
    request: Request, project: Project, fields: Posted, template: str, problems: Sequence[Problem]
) -> Response:
    made = draft.of_posted(fields)
    with unit_of_work() as db:
        values = view.values_of(db, project.id, made, fields, address_of(request), problems)
        is_part = bool(request.headers.get("hx-request"))
        return page(request, project, template if is_part else WHOLE, status_code=400, source=None, **values)


def _tried(request: Request, made: draft.Draft, tried: Sequence[view.Trial]) -> Response:
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        return page(request, project, TRIED, trials=tried, fault=made.grader.fault, draft=made)


def _trials(project_id: str, made: draft.Draft, fields: Posted) -> list[view.Trial]:
    """Returns the rows of the training file with their answers, or the row that stands in the playground."""
    with unit_of_work() as db:
        files = queries.file_choices(db, project_id, [made.texts["training_file"]])
        data = queries.data(files, made.texts["training_file"], made.method, is_training=True)
    return view.trials(data, made.grader.value, fields)
