"""Regrades as their owners see them: create, read, cancel. The worker's side is runs.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, func, select, tuple_
from sqlalchemy.orm import Session

from app import queue
from app.errors import BadRequest, NotFound, Refusals, TooManyJobs
from app.grading import service as grading
from app.ids import random_id
from app.jobs import service as jobs
from app.pagination import Owned, Page, fetch_page, number_after, page_by_age
from app.regrades.models import ACTIVE, Regrade, RegradeResult
from app.regrades.runs import LEASES
from app.regrades.schemas import Graders, JobRegradeCreate, RegradeCreate
from app.rollouts.models import Rollout
from app.rollouts.service import cursor_of, place_of
from app.tenants.models import Project

ResultOrder = Literal["graded", "difference"]
CONTROL = "control"
"""The split whose stored grades are permuted on purpose: nothing is compared with them unasked."""


def create_of_job(
    db: Session, project_id: str, job_id: str, request: JobRegradeCreate, *, max_active: int
) -> Regrade:
    """Queues a regrade of a job's rollouts. Raises `BadRequest`, `NotFound` or `TooManyJobs`."""
    job = jobs.get(db, project_id, job_id)
    graders = _graders(project_id, request)
    asked = request.model_dump(include={"split", "first_step", "last_step"})
    if None not in (first := asked["first_step"], last := asked["last_step"]) and last < first:
        raise BadRequest("'last_step' comes before 'first_step'.", param="last_step", code="invalid_value")
    source = {"type": "rollouts", **asked}
    if db.scalar(select(Rollout.step).where(*rollouts_of(job.id, source)).limit(1)) is None:
        raise BadRequest(f"Job {job_id} has no rollouts like these: only reinforcement jobs keep any.")
    return _queued(db, project_id, job.id, source, graders, request.metadata, max_active)


def create_of_stored(db: Session, project_id: str, request: RegradeCreate, *, max_active: int) -> Regrade:
    """Queues a regrade of stored completions. Raises `BadRequest` or `TooManyJobs`."""
    graders = _graders(project_id, request)
    source = request.source.model_dump(exclude_none=True)
    return _queued(db, project_id, None, source, graders, request.metadata, max_active)


def get(db: Session, project_id: str, regrade_id: str) -> Regrade:
    """Returns a regrade of the project. Raises `NotFound`."""
    mine = (Regrade.id == regrade_id, Regrade.project_id == project_id)
    regrade = db.scalars(select(Regrade).where(*mine)).first()
    if regrade is None:
        raise NotFound(f"No such regrade: {regrade_id}", param="regrade_id")
    return regrade


def list_regrades(
    db: Session, project_id: str, *, job_id: str | None, after: str | None, limit: int
) -> Page[Regrade]:
    """Returns regrades, newest first; those of one job if it is named."""
    query = select(Regrade).where(Regrade.project_id == project_id)
    if job_id is not None:
        query = query.where(Regrade.job_id == job_id)
    of = Owned(Regrade.project_id, project_id)
    return page_by_age(db, query, of, after=after, limit=limit, newest_first=True)


def cancel(db: Session, project_id: str, regrade_id: str) -> Regrade:
    """Cancels a regrade at once; a worker that is at it sees that within a second, and drops it.

    What was graded so far stays. Raises `NotFound`, or `BadRequest` if it is over.
    """
    regrade = get(db, project_id, regrade_id)
    if not LEASES.cancel(db, Regrade.id == regrade_id):
        db.refresh(regrade)
        if regrade.status != "cancelled":
            raise BadRequest(f"Regrade {regrade_id} has already {regrade.status}; it cannot be cancelled.")
    db.refresh(regrade)
    return regrade


def cancel_all(db: Session, project_id: str) -> None:
    """Cancels what a project has under way."""
    LEASES.cancel(db, Regrade.project_id == project_id)


def list_results(
    db: Session, regrade: Regrade, *, order: ResultOrder, after: str | None, limit: int
) -> Page[RegradeResult]:
    """Returns results in the order of grading, or those first in which the graders differ most."""
    query = select(RegradeResult).where(RegradeResult.regrade_id == regrade.id)
    seq = number_after(after)
    if order == "graded":
        query = query.where(RegradeResult.seq > seq) if seq is not None else query
        return fetch_page(db, query.order_by(RegradeResult.seq), limit)
    query = query.where(RegradeResult.distance.is_not(None))
    return fetch_page(db, _behind(db, query, regrade.id, seq), limit)


def texts_of(db: Session, regrade: Regrade, results: Sequence[RegradeResult]) -> dict[str, str]:
    """Returns what was graded, by `ref`: of rollouts as their job has them."""
    if regrade.job_id is not None:
        split_places = [(one.ref.partition("-")[0], *(place_of(one.ref) or ())) for one in results]
        columns = tuple_(Rollout.split, Rollout.step, Rollout.row, Rollout.sample)
        rows = select(Rollout).where(Rollout.job_id == regrade.job_id, columns.in_(split_places))
        return {cursor_of(row): row.text for row in db.scalars(rows)} if results else {}
    return {one.ref: one.text for one in results if one.text is not None}


def rollouts_of(job_id: str, source: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    """Returns the conditions of the rollouts that are meant."""
    found: list[ColumnElement[bool]] = [Rollout.job_id == job_id]
    split = source.get("split")
    found.append(Rollout.split == split if split else Rollout.split != CONTROL)
    if source.get("first_step") is not None:
        found.append(Rollout.step >= source["first_step"])
    if source.get("last_step") is not None:
        found.append(Rollout.step <= source["last_step"])
    return found


def _graders(project_id: str, request: Graders) -> dict[str, Any]:
    """Returns both graders as they are kept. Raises `BadRequest` with all that is wrong."""
    refusals, kept = Refusals(), dict[str, Any]()
    with refusals:
        kept["grader"] = grading.as_stored(request.grader, "grader", project_id)
    with refusals:
        if request.baseline is not None:
            kept["baseline"] = grading.as_stored(request.baseline, "baseline", project_id)
    refusals.raise_any()
    return kept


def _queued(
    db: Session,
    project_id: str,
    job_id: str | None,
    source: dict[str, Any],
    graders: dict[str, Any],
    metadata: dict[str, str] | None,
    max_active: int,
) -> Regrade:
    named = {"project_id": project_id, "job_id": job_id, "source": source, "meta": metadata}
    regrade = Regrade(id=random_id("regrade_"), **named, **graders)
    db.add(regrade)
    db.flush()
    _check_room(db, regrade, max_active)  # last: others of the project wait until this transaction ends
    queue.wake_evaluator(db)
    return regrade


def _behind(
    db: Session, query: Select[RegradeResult], regrade_id: str, seq: int | None
) -> Select[RegradeResult]:
    """Returns a query by distance, the largest first, behind the result of that number."""
    ordered = query.order_by(RegradeResult.distance.desc(), RegradeResult.seq.desc())
    seen = db.get(RegradeResult, (regrade_id, seq)) if seq is not None else None
    if seen is None:
        return ordered
    place = tuple_(RegradeResult.distance, RegradeResult.seq)
    return ordered.where(place < tuple_(seen.distance, seen.seq))


def _check_room(db: Session, regrade: Regrade, max_active: int) -> None:
    """Counts under a lock on the project, so that two requests at once cannot both take the last place."""
    project = select(Project.id).where(Project.id == regrade.project_id)
    db.scalars(project.with_for_update(key_share=True)).one()
    mine = (Regrade.project_id == regrade.project_id, Regrade.id != regrade.id, Regrade.status.in_(ACTIVE))
    count = db.scalars(select(func.count()).select_from(Regrade).where(*mine)).one()
    if count >= max_active:
        raise TooManyJobs(f"This project has {count} unfinished regrades, and {max_active} is the maximum.")
