"""Serves /v1/erasures, and of /v1/organization what it says of retention and erasures."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter, Depends

from app.db import unit_of_work
from app.erasures import service as erasures
from app.erasures.schemas import ErasureCreate, ErasureList, ErasureOut, RetentionOut, RetentionUpdate
from app.errors import BadRequest
from app.http.transaction import CurrentAdmin, CurrentCaller, Db, KeptRoute
from app.organization import service as organization
from app.pagination import Cursor, Limit
from app.settings import get_settings
from app.tenants import retention
from app.tenants.models import Project

router = APIRouter(prefix="/v1/erasures", tags=["flywheel"], route_class=KeptRoute)
of_organization = APIRouter(prefix="/v1/organization", tags=["organization"], route_class=KeptRoute)

OURS = {"x-cherry": True}
RETENTION = "/projects/{project_id}/completions_retention"


@router.post("", openapi_extra=OURS)
def create_erasure(request: ErasureCreate, caller: CurrentCaller, db: Db) -> ErasureOut:
    """Delete stored chat completions and responses, and all feedback on them, for good."""
    project = organization.project(db, caller.organization_id, caller.project_id)
    return ErasureOut.of(erasures.erase(db, project, caller.key_id, request))


@router.get("", openapi_extra=OURS)
def list_erasures(caller: CurrentCaller, db: Db, after: Cursor = None, limit: Limit = 20) -> ErasureList:
    """What of the stored went, newest first: as somebody asked for it, or as its time was over."""
    page = erasures.list_erasures(db, "project", caller.project_id, after=after, limit=limit)
    return ErasureList.of(page)


@router.get("/{erasure_id}", openapi_extra=OURS)
def retrieve_erasure(erasure_id: str, caller: CurrentCaller, db: Db) -> ErasureOut:
    """The record of what went."""
    return ErasureOut.of(erasures.get(db, caller.project_id, erasure_id))


@of_organization.get("/erasures", openapi_extra=OURS)
def list_organization_erasures(
    admin: CurrentAdmin, db: Db, after: Cursor = None, limit: Limit = 20
) -> ErasureList:
    """What went of all projects, also of those that were erased themselves, newest first."""
    page = erasures.list_erasures(db, "organization", admin.organization_id, after=after, limit=limit)
    return ErasureList.of(page)


def known(project_id: str, admin: CurrentAdmin) -> None:
    """Refuses a project that is not there. A dependency is asked before the body is looked at."""
    with unit_of_work() as db:
        organization.project(db, admin.organization_id, project_id)


@of_organization.get(RETENTION, openapi_extra=OURS)
def retrieve_retention(project_id: str, admin: CurrentAdmin, db: Db) -> RetentionOut:
    """How long a project's stored chat completions and responses are kept."""
    return _shown(organization.project(db, admin.organization_id, project_id))


@of_organization.post(RETENTION, openapi_extra=OURS, dependencies=[Depends(known)])
def update_retention(project_id: str, request: RetentionUpdate, admin: CurrentAdmin, db: Db) -> RetentionOut:
    """Keep a project's stored chat completions and responses for another time; what is stored goes no later
    than it was to go."""
    project = organization.project(db, admin.organization_id, project_id)
    erasures.set_retention(db, project, _kept(request), get_settings().completions_kept)
    return _shown(project)


def _kept(request: RetentionUpdate) -> timedelta | None:
    """Returns the wanted time. Raises `BadRequest` for one that is out of bounds."""
    if request.seconds is None:
        return None
    least, most = (int(bound.total_seconds()) for bound in (retention.LEAST, retention.MOST))
    if not least <= request.seconds <= most:
        told = f"Invalid value for 'seconds': expected an integer from {least} to {most:,}, or null."
        raise BadRequest(told, param="seconds", code="invalid_value")
    return timedelta(seconds=request.seconds)


def _shown(project: Project) -> RetentionOut:
    own, otherwise = project.completions_kept, get_settings().completions_kept
    return RetentionOut(
        project_id=project.id,
        seconds=None if own is None else int(own.total_seconds()),
        effective_seconds=int((own or otherwise).total_seconds()),
    )
