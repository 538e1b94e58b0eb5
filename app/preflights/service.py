"""Preflights as their owners see them: create, read, cancel. The worker's side is app/preflights/runs.py."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import queue
from app.errors import BadRequest, NotFound, TooManyJobs
from app.ids import random_id
from app.jobs import service as jobs
from app.pagination import Owned, Page, page_by_age
from app.preflights.models import ACTIVE, Preflight
from app.preflights.runs import FILES
from app.preflights.schemas import PreflightCreate
from app.tenants.models import Project


def create(
    db: Session,
    project_id: str,
    request: PreflightCreate,
    *,
    max_active: int,
    max_processes: int,
    max_gpus: int | None = None,
) -> Preflight:
    """Checks a request as that of a job is checked, and queues the preflight.

    Raises `BadRequest`, `NotFound` (a file) or `TooManyJobs`.
    """
    asked = jobs.checked(db, project_id, request, max_processes=max_processes, max_gpus=max_gpus)
    limits = request.preflight.model_dump(exclude_none=True) if request.preflight else {}
    preflight = Preflight(id=random_id("ftpre-"), project_id=project_id, limits=limits, **asked._asdict())
    db.add(preflight)
    db.flush()
    _check_room(db, preflight, max_active)  # last, as others of the project wait until this transaction ends
    queue.wake_validator(db)
    return preflight


def get(db: Session, project_id: str, preflight_id: str) -> Preflight:
    """Returns a preflight of the project. Raises `NotFound`."""
    mine = (Preflight.id == preflight_id, Preflight.project_id == project_id)
    preflight = db.scalars(select(Preflight).where(*mine)).first()
    if preflight is None:
        raise NotFound(f"No such preflight: {preflight_id}", param="preflight_id")
    return preflight


def list_preflights(db: Session, project_id: str, *, after: str | None, limit: int) -> Page[Preflight]:
    """Returns preflights, newest first."""
    query = select(Preflight).where(Preflight.project_id == project_id)
    of = Owned(Preflight.project_id, project_id)
    return page_by_age(db, query, of, after=after, limit=limit, newest_first=True)


def cancel(db: Session, project_id: str, preflight_id: str) -> Preflight:
    """Cancels a preflight at once; a worker that is at it sees that within a second, and drops it.

    What it has found so far stays. Raises `NotFound`, or `BadRequest` if it is over.
    """
    preflight = get(db, project_id, preflight_id)
    if not FILES.cancel(db, Preflight.id == preflight_id):
        db.refresh(preflight)
        if preflight.status != "cancelled":
            raise BadRequest(
                f"Preflight {preflight_id} has already {preflight.status}; it cannot be cancelled."
            )
    db.refresh(preflight)
    return preflight


def cancel_all(db: Session, project_id: str) -> None:
    """Cancels what a project has under way."""
    FILES.cancel(db, Preflight.project_id == project_id)


def _check_room(db: Session, preflight: Preflight, max_active: int) -> None:
    """Counts under a lock on the project, so that two requests at once cannot both take the last place."""
    project = select(Project.id).where(Project.id == preflight.project_id)
    db.scalars(project.with_for_update(key_share=True)).one()
    mine = Preflight.project_id == preflight.project_id, Preflight.id != preflight.id
    count = db.scalars(
        select(func.count()).select_from(Preflight).where(*mine, Preflight.status.in_(ACTIVE))
    ).one()
    if count >= max_active:
        raise TooManyJobs(f"This project has {count} unfinished preflights, and {max_active} is the maximum.")
