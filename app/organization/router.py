"""/v1/organization: projects, their keys and service accounts, admin keys. All take an admin key."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from app.db import unit_of_work
from app.http.transaction import CurrentAdmin, Db, KeptRoute
from app.organization import schemas as wire
from app.organization import service as organization
from app.organization.schemas import lifetime
from app.pagination import Cursor, Limit, Listed

router = APIRouter(prefix="/v1/organization", tags=["organization"], route_class=KeptRoute)

PROJECT = "/projects/{project_id}"
KEYS = f"{PROJECT}/api_keys"
ACCOUNTS = f"{PROJECT}/service_accounts"
ACCOUNT = f"{ACCOUNTS}/{{service_account_id}}"
ADMIN_KEYS = "/admin_api_keys"


def known(request: Request, admin: CurrentAdmin) -> None:
    """Refuses what is not there of all that the path names. A dependency is asked before the body is read."""
    named = request.path_params
    of = admin.organization_id, named["project_id"]
    with unit_of_work() as db:
        organization.project(db, *of)
        if "api_key_id" in named:
            organization.key(db, *of, named["api_key_id"])
        if "service_account_id" in named:
            organization.account(db, *of, named["service_account_id"])


KNOWN = [Depends(known)]
Access = Annotated[organization.Access, Query(description="Whether the owner has access to the project.")]


@router.get("/projects")
def list_projects(
    admin: CurrentAdmin, db: Db, after: Cursor = None, limit: Limit = 20, include_archived: bool = False
) -> Listed[wire.ProjectOut]:
    """Projects, oldest first."""
    page = organization.list_projects(
        db, admin.organization_id, include_archived=include_archived, after=after, limit=limit
    )
    return Listed[wire.ProjectOut].holding([wire.ProjectOut.of(row) for row in page.rows], page.has_more)


@router.post("/projects")
def create_project(request: wire.ProjectCreate, admin: CurrentAdmin, db: Db) -> wire.ProjectOut:
    request.check()
    return wire.ProjectOut.of(organization.create_project(db, admin.organization_id, request.name))


@router.get(PROJECT)
def retrieve_project(project_id: str, admin: CurrentAdmin, db: Db) -> wire.ProjectOut:
    return wire.ProjectOut.of(organization.project(db, admin.organization_id, project_id))


@router.post(PROJECT, dependencies=KNOWN)
def update_project(
    project_id: str, request: wire.ProjectUpdate, admin: CurrentAdmin, db: Db
) -> wire.ProjectOut:
    """Rename a project."""
    request.check()
    renamed = organization.rename_project(db, admin.organization_id, project_id, request.name)
    return wire.ProjectOut.of(renamed)


@router.post(f"{PROJECT}/archive")
def archive_project(project_id: str, admin: CurrentAdmin, db: Db) -> wire.ProjectOut:
    """End a project: its keys stop working at once. What it made stays, and there is no way back."""
    return wire.ProjectOut.of(organization.archive_project(db, admin.organization_id, project_id))


@router.get(KEYS)
def list_keys(
    project_id: str,
    admin: CurrentAdmin,
    db: Db,
    after: Cursor = None,
    limit: Limit = 20,
    owner_project_access: Access = "any",
) -> Listed[wire.KeyOut]:
    """A project's keys, oldest first."""
    page = organization.list_keys(
        db, admin.organization_id, project_id, access=owner_project_access, after=after, limit=limit
    )
    return Listed[wire.KeyOut].holding([wire.KeyOut.of(row) for row in page.rows], page.has_more)


@router.get(f"{KEYS}/{{api_key_id}}")
def retrieve_key(project_id: str, api_key_id: str, admin: CurrentAdmin, db: Db) -> wire.KeyOut:
    return wire.KeyOut.of(organization.key(db, admin.organization_id, project_id, api_key_id))


@router.post(f"{KEYS}/{{api_key_id}}", dependencies=KNOWN)
def update_key(
    project_id: str, api_key_id: str, request: wire.KeyUpdate, admin: CurrentAdmin, db: Db
) -> wire.KeyOut:
    """Let a key expire, counted from now."""
    request.check()
    after = lifetime(request.expires_in_seconds)
    return wire.KeyOut.of(organization.change_key(db, admin.organization_id, project_id, api_key_id, after))


@router.delete(f"{KEYS}/{{api_key_id}}")
def delete_key(project_id: str, api_key_id: str, admin: CurrentAdmin, db: Db) -> wire.KeyDeleted:
    """Make a key useless at once."""
    organization.delete_key(db, admin.organization_id, project_id, api_key_id)
    return wire.KeyDeleted(id=api_key_id)


@router.get(ACCOUNTS)
def list_accounts(
    project_id: str, admin: CurrentAdmin, db: Db, after: Cursor = None, limit: Limit = 20
) -> Listed[wire.AccountOut]:
    """A project's service accounts, oldest first."""
    page = organization.list_accounts(db, admin.organization_id, project_id, after=after, limit=limit)
    return Listed[wire.AccountOut].holding([wire.AccountOut.of(row) for row in page.rows], page.has_more)


@router.post(ACCOUNTS, dependencies=KNOWN)
def create_account(
    project_id: str, request: wire.AccountCreate, admin: CurrentAdmin, db: Db
) -> wire.AccountCreated:
    """Make a service account, with a key that is in this answer only."""
    request.check()
    made = organization.create_account(
        db,
        admin.organization_id,
        project_id,
        request.name,
        with_key=not request.create_service_account_only,
        expires_after=lifetime(request.expires_in_seconds),
    )
    return wire.AccountCreated.of_new(made)


@router.get(ACCOUNT)
def retrieve_account(
    project_id: str, service_account_id: str, admin: CurrentAdmin, db: Db
) -> wire.AccountOut:
    found = organization.account(db, admin.organization_id, project_id, service_account_id)
    return wire.AccountOut.of(found)


@router.post(ACCOUNT, dependencies=KNOWN)
def update_account(
    project_id: str, service_account_id: str, request: wire.AccountUpdate, admin: CurrentAdmin, db: Db
) -> wire.AccountOut:
    """Change a service account's name or role."""
    changed = organization.change_account(
        db, admin.organization_id, project_id, service_account_id, **request.model_dump()
    )
    return wire.AccountOut.of(changed)


@router.delete(ACCOUNT)
def delete_account(
    project_id: str, service_account_id: str, admin: CurrentAdmin, db: Db
) -> wire.AccountDeleted:
    """Delete a service account; its keys stop working at once."""
    organization.delete_account(db, admin.organization_id, project_id, service_account_id)
    return wire.AccountDeleted(id=service_account_id)


@router.post(f"{ACCOUNT}/api_keys", dependencies=KNOWN)
def create_account_key(
    project_id: str, service_account_id: str, request: wire.AccountKeyCreate, admin: CurrentAdmin, db: Db
) -> wire.NewKeyOut:
    """Make another key for a service account, shown in this answer only."""
    request.check()
    after = lifetime(request.expires_in_seconds)
    made = organization.create_account_key(
        db, admin.organization_id, project_id, service_account_id, request.name, after
    )
    return wire.NewKeyOut.of(made)


@router.get(ADMIN_KEYS)
def list_admin_keys(
    admin: CurrentAdmin,
    db: Db,
    after: Cursor = None,
    limit: Limit = 20,
    order: organization.Order = "asc",
) -> Listed[wire.AdminKeyOut]:
    """The organisation's admin keys, by age."""
    page = organization.list_admin_keys(db, admin.organization_id, order=order, after=after, limit=limit)
    return Listed[wire.AdminKeyOut].holding([wire.AdminKeyOut.of(row) for row in page.rows], page.has_more)


@router.post(ADMIN_KEYS)
def create_admin_key(request: wire.AdminKeyCreate, admin: CurrentAdmin, db: Db) -> wire.AdminKeyCreated:
    """Make another admin key, shown in this answer only."""
    after = lifetime(request.expires_in_seconds)
    made = organization.create_admin_key(db, admin.organization_id, request.name, after)
    return wire.AdminKeyCreated.of_new(made)


@router.get(f"{ADMIN_KEYS}/{{key_id}}")
def retrieve_admin_key(key_id: str, admin: CurrentAdmin, db: Db) -> wire.AdminKeyOut:
    return wire.AdminKeyOut.of(organization.admin_key(db, admin.organization_id, key_id))


@router.delete(f"{ADMIN_KEYS}/{{key_id}}")
def delete_admin_key(key_id: str, admin: CurrentAdmin, db: Db) -> wire.AdminKeyDeleted:
    """Make an admin key useless at once."""
    organization.delete_admin_key(db, admin.organization_id, key_id)
    return wire.AdminKeyDeleted(id=key_id)
