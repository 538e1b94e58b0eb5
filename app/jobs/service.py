"""Jobs as their owners see them: create, read, cancel. The worker's side is app/jobs/runs.py."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app import queue
from app.errors import ApiError, BadRequest, NotFound, Refusals, TooManyJobs
from app.evals import of_jobs
from app.events import service as events
from app.files import service as files
from app.files.models import File
from app.ids import random_id
from app.jobs import control, status
from app.jobs.methods import ReinforcementMethod
from app.jobs.models import ACTIVE, TERMINAL, Job
from app.jobs.request import (
    TOOLS,
    check_sharding,
    checked_block,
    checked_integrations,
    checked_method,
    checked_resources,
)
from app.jobs.schemas import MAX_SEED, JobCreate
from app.models import service as models
from app.models.models import Model
from app.pagination import Owned, Page, page_by_age
from app.tenants.models import Project

METHODS = ("reinforcement", "supervised", "dpo")
FILES = ("training_file", "validation_file", "canary_file")


class Asked(NamedTuple):
    """What a request asks to be trained, checked against what the project has; as columns of a row."""

    model: str
    training_file: str
    validation_file: str | None
    canary_file: str | None
    seed: int
    method: dict[str, Any]
    resources: dict[str, int] | None


def checked(
    db: Session, project_id: str, request: JobCreate, *, max_processes: int, max_gpus: int | None = None
) -> Asked:
    """Checks a request as far as that needs no file to be read.

    Raises `BadRequest` or `NotFound` (a file), with all that is wrong.
    """
    refusals, method = Refusals(), None
    with refusals:
        method = checked_method(request, project_id)
    kind = "supervised" if request.method is None else request.method.type
    with refusals:
        resources = checked_resources(request.resources, max_processes, kind, max_gpus)
        if method is not None:
            check_sharding(method, resources)
    named = request.model_dump(include={"model", *FILES})
    model, found = _found(db, project_id, named, kind, refusals)
    if model is not None and _has_tools(request):
        with refusals:
            models.check_calls(db, project_id, model, TOOLS)
    refusals.raise_any()
    assert model is not None
    assert method is not None
    validation, canary = found.get("validation_file"), found.get("canary_file")
    return Asked(
        model=model.name,
        training_file=found["training_file"].id,
        validation_file=validation.id if validation else None,
        canary_file=canary.id if canary else None,
        seed=request.seed if request.seed is not None else secrets.randbelow(MAX_SEED + 1),
        method=method,
        resources=resources,
    )


def _has_tools(request: JobCreate) -> bool:
    return isinstance(request.method, ReinforcementMethod) and bool(request.method.reinforcement.tools)


def _found(
    db: Session, project_id: str, fields: Mapping[str, Any], kind: Any, refusals: Refusals
) -> tuple[Model | None, dict[str, File]]:
    """Returns the model and the files that a request names. `kind` is its method's, if it names one."""
    model, found = None, {}
    if isinstance(name := fields.get("model"), str):
        with refusals:
            model = models.tunable(db, project_id, name)
    if model is not None and kind in METHODS:
        with refusals:
            models.check_method(db, project_id, model, kind)
    for param in FILES:
        if isinstance(file_id := fields.get(param), str):
            with refusals:
                found[param] = files.for_job(db, project_id, file_id, param)
    return model, found


def further_refusals(db: Session, project_id: str, body: Mapping[str, Any]) -> list[ApiError]:
    """Returns what is wrong with the model, files, graders and response format of a malformed request."""
    refusals = Refusals()
    match body.get("method"):
        case {"type": "reinforcement", "reinforcement": dict(block)}:
            checked_block(block, project_id, refusals)
    method = body.get("method")
    _found(db, project_id, body, method.get("type") if isinstance(method, dict) else None, refusals)
    return refusals.all


def create(
    db: Session,
    project_id: str,
    request: JobCreate,
    *,
    max_active: int,
    max_processes: int,
    max_gpus: int | None = None,
) -> Job:
    """Check a request against what the project has, and start the job with its first events.

    Raises `BadRequest`, `NotFound` (a file) or `TooManyJobs`.
    """
    asked = checked(db, project_id, request, max_processes=max_processes, max_gpus=max_gpus)
    job = Job(
        id=random_id("ftjob-"),
        project_id=project_id,
        suffix=request.suffix,
        meta=request.metadata,
        integrations=checked_integrations(request),
        **asked._asdict(),
    )
    db.add(job)
    db.flush()
    if job.method["type"] == "reinforcement":
        of_jobs.make(db, job)
    read = f"Validating training file: {job.training_file}"
    if job.validation_file:
        read += f" and validation file: {job.validation_file}"
    events.append(db, job.id, "created", f"Created fine-tuning job: {job.id}")
    events.append(db, job.id, "validating", read)
    _check_room(db, job, max_active)  # last, as others of the project wait until this transaction ends
    queue.wake_validator(db)
    return job


def get(db: Session, project_id: str, job_id: str) -> Job:
    """A job of the project. Raises `NotFound`."""
    job = db.scalars(select(Job).where(Job.id == job_id, Job.project_id == project_id)).first()
    if job is None:
        raise not_found(job_id)
    return job


def get_several(db: Session, owned: Collection[tuple[str, str]]) -> dict[tuple[str, str], Job]:
    """Those jobs, each by its project and its id, that there are."""
    found = db.scalars(select(Job).where(Job.id.in_({job_id for _, job_id in owned})))
    return {named: job for job in found if (named := (job.project_id, job.id)) in owned}


def not_found(job_id: str) -> NotFound:
    """There is no such job, or none that the project may see."""
    message = f"Could not find fine tune: {job_id}"
    return NotFound(message, param="fine_tune_id", code="fine_tune_not_found")


def list_jobs(
    db: Session, project_id: str, *, metadata: Mapping[str, str] | None, after: str | None, limit: int
) -> Page[Job]:
    """Jobs, newest first, that carry all these pairs; an empty mapping means jobs without metadata."""
    query = select(Job).where(Job.project_id == project_id)
    if metadata:
        query = query.where(Job.meta.contains(dict(metadata)))
    elif metadata is not None:
        query = query.where(or_(Job.meta.is_(None), Job.meta == {}))
    of = Owned(Job.project_id, project_id)
    return page_by_age(db, query, of, after=after, limit=limit, newest_first=True)


def cancel(db: Session, project_id: str, job_id: str) -> Job:
    """Cancel a job: at once unless it runs. Raises `NotFound`, or `BadRequest` if it is over."""
    job = get(db, project_id, job_id)
    try:
        return control.request_cancel(db, job.id)
    except status.MoveRefused:
        raise BadRequest(f"Job {job_id} {_already(job)}; it cannot be cancelled.") from None


def pause(db: Session, project_id: str, job_id: str) -> Job:
    """Pause a job: at once unless it runs. Raises `NotFound`, or `BadRequest` if it cannot pause."""
    job = get(db, project_id, job_id)
    try:
        return control.request_pause(db, job.id)
    except status.MoveRefused:
        message = f"Job {job_id} {_already(job)}; only a job that is queued or running can be paused."
        raise BadRequest(message) from None


def resume(db: Session, project_id: str, job_id: str) -> Job:
    """Queue a paused job again. Raises `NotFound`, or `BadRequest` if it was never to be paused."""
    job = get(db, project_id, job_id)
    try:
        return control.request_resume(db, job.id)
    except status.MoveRefused:
        raise BadRequest(f"Job {job_id} {_already(job)}; only a paused job can be resumed.") from None


def _already(job: Job) -> str:
    """What a job that refuses a move is, as the end of a sentence about it."""
    if job.status == "validating_files":
        return "is still validating its files"
    if job.status == "cancelled":
        return "was already cancelled"
    return f"has already {job.status}" if job.status in TERMINAL else "is being cancelled"


def _check_room(db: Session, job: Job, max_active: int) -> None:
    """Count under a lock on the project, so that two requests at once cannot both take the last place."""
    db.scalars(select(Project.id).where(Project.id == job.project_id).with_for_update(key_share=True)).one()
    others = Job.project_id == job.project_id, Job.status.in_(ACTIVE), Job.id != job.id
    if (count := db.scalars(select(func.count()).where(*others)).one()) >= max_active:
        raise TooManyJobs(f"This project has {count} unfinished jobs, and {max_active} is the maximum.")
