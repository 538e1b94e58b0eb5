"""Asks the services for a job or a preflight, as the API's routes do, and gathers all that they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.dashboard.create.problems import of_validation
from app.db import unit_of_work
from app.errors import ApiError, BadRequest, Refusals
from app.jobs import capacity
from app.jobs import service as jobs
from app.jobs.schemas import JobCreate
from app.preflights import service as preflights
from app.preflights.schemas import PreflightCreate
from app.settings import get_settings
from graders.strict_json import StrictJsonError, loads

Asked = TypeVar("Asked", bound=JobCreate)


def create_job(project_id: str, body: Mapping[str, Any]) -> str:
    """Starts a job. Returns its id. Raises `ApiError` with all that is wrong."""
    return _create(project_id, body, JobCreate, jobs.create)


def create_preflight(project_id: str, body: Mapping[str, Any]) -> str:
    """Queues a preflight of a job. Returns its id. Raises `ApiError` with all that is wrong."""
    return _create(project_id, body, PreflightCreate, preflights.create)


def _create(project_id: str, body: Mapping[str, Any], form: type[Asked], create: Callable[..., Any]) -> str:
    settings = get_settings()
    request = _read(project_id, body, form)
    with unit_of_work() as db:
        made = create(
            db,
            project_id,
            request,
            max_active=settings.max_active_jobs,
            max_processes=capacity.max_processes(settings),
            max_gpus=capacity.max_gpus(settings),
        )
        found: str = made.id
        return found


def _read(project_id: str, body: Mapping[str, Any], form: type[Asked]) -> Asked:
    """Reads a body as the API reads JSON: strictly."""
    try:
        given = loads(json.dumps(body).encode())
    except (StrictJsonError, ValueError) as fault:
        raise BadRequest(f"The form holds something that JSON has no sign for: {fault}.") from None
    try:
        return form.model_validate(given)
    except ValidationError as problem:
        refusals = Refusals()
        refusals.all += of_validation(problem)
        told = {one.param for one in refusals.all}
        with unit_of_work() as db:
            refusals.all += [one for one in _further(db, project_id, given) if one.param not in told]
        raise refusals.together() from None


def _further(db: Session, project_id: str, given: Mapping[str, Any]) -> list[ApiError]:
    return jobs.further_refusals(db, project_id, given)
