"""Serves the checkpoints of a job: a table, what to do with one of them, downloads, and a box to try it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.auth import Caller
from app.cards import service as cards
from app.cards.points import Point, points
from app.checkpoints import service as checkpoints
from app.checkpoints.download import sent
from app.checkpoints.models import Checkpoint
from app.dashboard import sign_in
from app.dashboard.checkpoints import forms
from app.dashboard.checkpoints.reasons import why_delivered
from app.dashboard.checkpoints.table import Row, table
from app.dashboard.checkpoints.trying import Question, answers, question_of
from app.dashboard.shown import FROM_HERE, page, to_login
from app.db import unit_of_work
from app.exports import service as exports
from app.exports.schemas import ExportOut
from app.exports.use import Format
from app.inference.streams import while_connected
from app.jobs import service as jobs
from app.jobs.models import Job
from app.pagination import Cursor
from app.settings import get_settings
from app.storage import get_storage

router = APIRouter()
PAGE = "/jobs/{job_id}/checkpoints"
ONE = f"{PAGE}/{{checkpoint_id}}"


@router.get(PAGE)
def checkpoints_page(request: Request, job_id: str, checkpoint: Cursor = None) -> Response:
    """Shows every checkpoint, and how to use the one that is named, else the delivered or the newest kept."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        job = jobs.get(db, project.id, job_id)
        found = points(db, job)
        rows = [point.checkpoint for point in found]
        values = checkpoints.metrics_of(db, rows)
        chosen = _chosen(found, checkpoint)
        return page(
            request,
            project,
            "checkpoints/checkpoints.html",
            job=job,
            table=table([Row(point, values[point.checkpoint.id]) for point in found]),
            why=why_delivered(job, found),
            chosen=chosen,
            **(_of_chosen(db, request, job, chosen) if chosen else {}),
        )


def _chosen(found: list[Point], wanted: str | None) -> Checkpoint | None:
    """Returns a checkpoint whose files are there: the wanted one, else the delivered, else the newest."""
    kept = [point for point in found if point.checkpoint.storage_key is not None]
    best = [point for point in kept if point.checkpoint.id == wanted]
    best += [point for point in kept if point.is_delivered] + kept[::-1]
    return best[0].checkpoint if best else None


def _of_chosen(db: Session, request: Request, job: Job, chosen: Checkpoint) -> dict[str, Any]:
    name = _name(db, job, chosen)
    return {
        "name": name,
        "forms": forms.forms_of(db, job, chosen, name, get_storage()),
        "openai": forms.openai_snippet(str(request.base_url).rstrip("/"), name),
        "question": Question.model_construct(prompt="", system="", temperature=1.0, max_tokens=256),
        "serves": bool(get_settings().sampler_url),
    }


def _name(db: Session, job: Job, checkpoint: Checkpoint) -> str:
    return forms.names_of(job, [checkpoint], checkpoints.delivered(db, job))[checkpoint.id]


@router.get(f"{ONE}/download")
def download(request: Request, job_id: str, checkpoint_id: str, format: Format | None = None) -> Response:
    """Sends a form as the API does; one that a worker has yet to make leads back to the page that says so."""
    with unit_of_work() as db:
        project = sign_in.signed_in(request, db)
    if project is None:
        return to_login(request)
    answer = sent(project.id, job_id, checkpoint_id, format, request.headers)
    if isinstance(answer, ExportOut):
        return RedirectResponse(
            f"/dashboard/jobs/{job_id}/checkpoints?checkpoint={checkpoint_id}#{format}", status_code=303
        )
    return answer


@router.get(f"{ONE}/forms/{{form}}")
def form_state(request: Request, job_id: str, checkpoint_id: str, form: Format) -> Response:
    """Shows one form anew, as far as a worker is with it."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        job = jobs.get(db, project.id, job_id)
        checkpoint = checkpoints.get_kept(db, job.id, checkpoint_id)
        return _form_page(request, db, job, checkpoint, form, project)


@router.post(f"{ONE}/forms/{{form}}", dependencies=FROM_HERE)
def make_form(request: Request, job_id: str, checkpoint_id: str, form: Format) -> Response:
    """Asks a worker for a form, as the first request for its download does."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        job = jobs.get(db, project.id, job_id)
        checkpoint = checkpoints.get_kept(db, job.id, checkpoint_id)
        exports.made_or_asked(db, job, checkpoint, form, cards.beside_download(db, job, get_settings()))
        return _form_page(request, db, job, checkpoint, form, project)


def _form_page(
    request: Request, db: Session, job: Job, checkpoint: Checkpoint, form: Format, project: Any
) -> Response:
    found = forms.form_of(db, job, checkpoint, _name(db, job, checkpoint), get_storage(), form)
    return page(
        request,
        project,
        "checkpoints/form.html",
        job=job,
        chosen=checkpoint,
        form=found,
        progress=forms.shown_progress(found.made.progress if found.made else None),
    )


@router.post(f"{ONE}/try", dependencies=FROM_HERE)
async def try_model(request: Request, job_id: str, checkpoint_id: str) -> Response:
    """Asks the base and the checkpoint one question, and shows both answers side by side."""
    form = await request.form(max_fields=16, max_files=0)
    asked = await run_in_threadpool(_asked, request, job_id, checkpoint_id)
    if asked is None:
        return to_login(request)
    project, caller, models = asked
    question, wrong = question_of(form)
    if question is None:
        return page(request, project, "checkpoints/wrong.html", wrong=wrong, status_code=422)
    said = await while_connected(request.receive, answers(request, caller, question, models))
    return page(request, project, "checkpoints/answers.html", answers=said)


def _asked(request: Request, job_id: str, checkpoint_id: str) -> tuple[Any, Caller, dict[str, str]] | None:
    with unit_of_work() as db:
        if (owner := sign_in.owner(request, db)) is None:
            return None
        job = jobs.get(db, owner.project.id, job_id)
        checkpoint = checkpoints.get_kept(db, job.id, checkpoint_id)
        caller = Caller(owner.key.id, owner.project.id, owner.project.organization_id)
        models = {"Base": job.model, f"Step {checkpoint.step}": _name(db, job, checkpoint)}
        return owner.project, caller, models
