"""Serves the files of a project: what they hold, who uses them, download and deletion."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.dashboard import sign_in
from app.dashboard.library.preview import Preview, preview
from app.dashboard.shown import FROM_HERE, page, to_login
from app.db import unit_of_work
from app.errors import ApiError
from app.files import service as files
from app.files.models import File
from app.files.schemas import JSONL_ONLY
from app.files.sending import sent
from app.jobs.models import ACTIVE, Job
from app.pagination import Cursor
from app.storage import get_storage
from app.tenants.models import Project

PAGE = 50
USERS = 20

router = APIRouter()


@router.get("/files")
def file_list(request: Request, after: Cursor = None) -> Response:
    """Shows files, newest first."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        shown = files.list_files(db, project.id, purpose=None, order="desc", after=after, limit=PAGE)
        return page(request, project, "library/files.html", files=shown.rows, more=shown.has_more)


@router.get("/files/{file_id}")
def file_page(request: Request, file_id: str) -> Response:
    """Shows a file, its first rows, and the jobs that use it."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        file = files.get(db, project.id, file_id)
        users = _users(db, project.id, file_id)
    return _shown(request, project, file, users)


def _shown(
    request: Request, project: Project, file: File, users: Sequence[Job], problem: ApiError | None = None
) -> Response:
    return page(
        request,
        project,
        "library/file.html",
        file=file,
        users=users,
        faults=[job for job in users if job.error and file.id in str(job.error.get("message"))],
        in_use=[job for job in users if job.status in ACTIVE],
        preview=_preview(file),
        problem=problem,
        status_code=problem.status if problem else 200,
    )


def _preview(file: File) -> Preview | None:
    """Returns the first lines of what is JSONL; None of anything else, or of bytes that are gone."""
    if file.purpose not in (*JSONL_ONLY, "evals") and not file.filename.lower().endswith(".jsonl"):
        return None
    try:
        return preview(get_storage(), file.storage_key)
    except FileNotFoundError:
        return None


def _users(db: Session, project_id: str, file_id: str) -> Sequence[Job]:
    """Returns the newest jobs that read a file."""
    reads = or_(Job.training_file == file_id, Job.validation_file == file_id, Job.canary_file == file_id)
    mine = select(Job).where(Job.project_id == project_id, reads)
    return db.scalars(mine.order_by(Job.created_at.desc(), Job.id.desc()).limit(USERS)).all()


@router.get("/files/{file_id}/content")
def file_content(request: Request, file_id: str) -> Response:
    """Sends the bytes, to be saved and never shown."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        file = files.get(db, project.id, file_id)
    return sent(file)


@router.post("/files/{file_id}/delete", dependencies=FROM_HERE)
def delete_file(request: Request, file_id: str) -> Response:
    """Deletes a file, or says on its page why it stays."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
    try:
        with unit_of_work() as db:
            files.remove(db, project.id, file_id)
    except ApiError as problem:
        with unit_of_work() as db:
            file = files.get(db, project.id, file_id)
            return _shown(request, project, file, _users(db, project.id, file_id), problem)
    return RedirectResponse("/dashboard/files", status_code=303)
