"""Manages projects, service accounts and keys of one organisation. Another's look as if they were not
there."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, NamedTuple

from sqlalchemy import func, select, true, update
from sqlalchemy.orm import Session

from app.errors import BadRequest, NotFound
from app.ids import random_id
from app.pagination import Owned, Page, page_by_age
from app.tenants import service as tenants
from app.tenants.models import AdminApiKey, ApiKey, Project, ServiceAccount
from app.tenants.service import DEFAULT_PROJECT, NewAdminKey, NewKey, is_valid

Order = Literal["asc", "desc"]
Access = Literal["active", "inactive", "any"]


class OwnedKey(NamedTuple):
    """A project's key, and the service account that has it; None for the operator's own."""

    key: ApiKey
    account: ServiceAccount | None
    is_active: bool


class NewAccount(NamedTuple):
    account: ServiceAccount
    key: NewKey | None


def list_projects(
    db: Session, organization_id: str, *, include_archived: bool, after: str | None, limit: int
) -> Page[Project]:
    """Lists projects, oldest first."""
    query = select(Project).where(Project.organization_id == organization_id)
    if not include_archived:
        query = query.where(Project.archived_at.is_(None))
    of = Owned(Project.organization_id, organization_id)
    return page_by_age(db, query, of, after=after, limit=limit, newest_first=False)


def project(db: Session, organization_id: str, project_id: str) -> Project:
    """Returns a project of the organisation, archived or not. Raises `NotFound`."""
    own = (Project.id == project_id, Project.organization_id == organization_id)
    found = db.scalars(select(Project).where(*own)).first()
    if found is None:
        raise NotFound(f"No such project: {project_id}", param="project_id")
    return found


def create_project(db: Session, organization_id: str, name: str) -> Project:
    return tenants.create_project(db, organization_id, name)


def rename_project(db: Session, organization_id: str, project_id: str, name: str | None) -> Project:
    """Returns a project that is in use. Raises `NotFound`, or `BadRequest` if it is archived."""
    found = _active_project(db, organization_id, project_id)
    if name is not None:
        found.name = name
        db.flush()
    return found


def archive_project(db: Session, organization_id: str, project_id: str) -> Project:
    """Ends a project: from now on none of its keys works. What it made stays, and there is no way back."""
    if project_id == DEFAULT_PROJECT:
        raise BadRequest("The default project cannot be archived.", param="project_id")
    found = project(db, organization_id, project_id)
    if found.archived_at is None:
        found.archived_at = db.scalars(select(func.now())).one()
        db.flush()
    return found


def list_keys(
    db: Session, organization_id: str, project_id: str, *, access: Access, after: str | None, limit: int
) -> Page[OwnedKey]:
    """Lists a project's keys that are not revoked, oldest first."""
    found = project(db, organization_id, project_id)
    query = select(ApiKey).where(ApiKey.project_id == found.id, ApiKey.revoked_at.is_(None))
    if access != "any":
        roleless = select(ServiceAccount.id).where(
            ServiceAccount.id == ApiKey.service_account_id, ServiceAccount.role == "none"
        )
        inactive = roleless.exists() if found.archived_at is None else true()
        query = query.where(inactive if access == "inactive" else ~inactive)
    of = Owned(ApiKey.project_id, found.id)
    page = page_by_age(db, query, of, after=after, limit=limit, newest_first=False)
    return Page([_owned(db, found, key) for key in page.rows], page.has_more)


def key(db: Session, organization_id: str, project_id: str, key_id: str) -> OwnedKey:
    """Returns a project's key. Raises `NotFound`, also for a revoked key."""
    found = project(db, organization_id, project_id)
    own = (ApiKey.id == key_id, ApiKey.project_id == found.id, ApiKey.revoked_at.is_(None))
    row = db.scalars(select(ApiKey).where(*own)).first()
    if row is None:
        raise NotFound(f"No such API key: {key_id}", param="api_key_id")
    return _owned(db, found, row)


def change_key(
    db: Session, organization_id: str, project_id: str, key_id: str, expires_after: timedelta | None
) -> OwnedKey:
    """Gives a key another expiry, counted from now. Raises `NotFound`, `BadRequest` if it is over."""
    owned = key(db, organization_id, project_id, key_id)
    if expires_after is None:
        return owned
    statement = update(ApiKey).where(ApiKey.id == key_id, *is_valid(ApiKey))
    changed = db.scalars(
        statement.values(expires_at=tenants.expiry(expires_after)).returning(ApiKey),
        execution_options={"populate_existing": True},
    ).first()
    if changed is None:
        raise BadRequest(f"The key {key_id} has expired; make a new one.", param="api_key_id")
    return owned._replace(key=changed)


def delete_key(db: Session, organization_id: str, project_id: str, key_id: str) -> None:
    """Revokes a project's key. Raises `NotFound`."""
    owned = key(db, organization_id, project_id, key_id)
    tenants.revoke_key(db, owned.key.project_id, key_id)


def list_accounts(
    db: Session, organization_id: str, project_id: str, *, after: str | None, limit: int
) -> Page[ServiceAccount]:
    """Lists a project's service accounts, oldest first."""
    found = project(db, organization_id, project_id)
    query = select(ServiceAccount).where(ServiceAccount.project_id == found.id)
    of = Owned(ServiceAccount.project_id, found.id)
    return page_by_age(db, query, of, after=after, limit=limit, newest_first=False)


def account(db: Session, organization_id: str, project_id: str, account_id: str) -> ServiceAccount:
    """Returns a service account. Raises `NotFound`."""
    found = project(db, organization_id, project_id)
    own = (ServiceAccount.id == account_id, ServiceAccount.project_id == found.id)
    row = db.scalars(select(ServiceAccount).where(*own)).first()
    if row is None:
        raise NotFound(f"No such service account: {account_id}", param="service_account_id")
    return row


def create_account(
    db: Session,
    organization_id: str,
    project_id: str,
    name: str,
    *,
    with_key: bool,
    expires_after: timedelta | None,
) -> NewAccount:
    """Makes a member of the project with a key, or an account without a role and without one."""
    found = _active_project(db, organization_id, project_id)
    role = "member" if with_key else "none"
    row = ServiceAccount(id=random_id("svc_acct_"), project_id=found.id, name=name, role=role)
    db.add(row)
    db.flush()
    if not with_key:
        return NewAccount(row, None)
    made = tenants.create_key(
        db, found.id, "Secret Key", service_account_id=row.id, expires_after=expires_after
    )
    return NewAccount(row, made)


def change_account(
    db: Session, organization_id: str, project_id: str, account_id: str, **changes: str | None
) -> ServiceAccount:
    """Changes name or role, as far as they are given. Raises `NotFound`, `BadRequest`."""
    _active_project(db, organization_id, project_id)
    row = account(db, organization_id, project_id, account_id)
    for field, value in changes.items():
        if value is not None:
            setattr(row, field, value)
    db.flush()
    return row


def delete_account(db: Session, organization_id: str, project_id: str, account_id: str) -> None:
    """Deletes an account; its keys stop working. Raises `NotFound`."""
    row = account(db, organization_id, project_id, account_id)
    its_keys = (ApiKey.service_account_id == row.id, ApiKey.revoked_at.is_(None))
    db.execute(update(ApiKey).where(*its_keys).values(revoked_at=func.now()))
    db.delete(row)
    db.flush()


def create_account_key(
    db: Session,
    organization_id: str,
    project_id: str,
    account_id: str,
    name: str,
    expires_after: timedelta | None,
) -> NewKey:
    """Makes another key for a service account. Raises `NotFound`, `BadRequest` if the project is archived."""
    found = _active_project(db, organization_id, project_id)
    row = account(db, organization_id, project_id, account_id)
    return tenants.create_key(db, found.id, name, service_account_id=row.id, expires_after=expires_after)


def list_admin_keys(
    db: Session, organization_id: str, *, order: Order, after: str | None, limit: int
) -> Page[AdminApiKey]:
    """Lists admin keys that are not revoked, oldest first unless `order` is "desc"."""
    valid = (AdminApiKey.organization_id == organization_id, AdminApiKey.revoked_at.is_(None))
    of = Owned(AdminApiKey.organization_id, organization_id)
    newest_first = order == "desc"
    return page_by_age(
        db, select(AdminApiKey).where(*valid), of, after=after, limit=limit, newest_first=newest_first
    )


def admin_key(db: Session, organization_id: str, key_id: str) -> AdminApiKey:
    """Returns an admin key. Raises `NotFound`, also for a revoked key."""
    own = (AdminApiKey.id == key_id, AdminApiKey.organization_id == organization_id)
    row = db.scalars(select(AdminApiKey).where(*own, AdminApiKey.revoked_at.is_(None))).first()
    if row is None:
        raise NotFound(f"No such admin API key: {key_id}", param="key_id")
    return row


def create_admin_key(
    db: Session, organization_id: str, name: str, expires_after: timedelta | None
) -> NewAdminKey:
    return tenants.create_admin_key(db, organization_id, name, expires_after=expires_after)


def delete_admin_key(db: Session, organization_id: str, key_id: str) -> None:
    """Revokes an admin key. Raises `NotFound`."""
    admin_key(db, organization_id, key_id)
    tenants.revoke_admin_key(db, organization_id, key_id)


def _active_project(db: Session, organization_id: str, project_id: str) -> Project:
    found = project(db, organization_id, project_id)
    if found.archived_at is not None:
        raise BadRequest(f"The project {project_id} is archived and cannot be changed.", param="project_id")
    return found


def _owned(db: Session, of: Project, key: ApiKey) -> OwnedKey:
    owner = db.get(ServiceAccount, key.service_account_id) if key.service_account_id else None
    has_role = owner is None or owner.role != "none"
    return OwnedKey(key, owner, has_role and of.archived_at is None)
