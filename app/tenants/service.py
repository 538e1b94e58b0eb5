"""Makes organisations, projects and keys for an operator (`cherry keys`), and reads them on every request."""

from __future__ import annotations

import hashlib
import zlib
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.ids import ALPHANUMERIC, random_id
from app.tenants.models import AdminApiKey, ApiKey, Organization, Project, ServiceAccount

PREFIX = "sk-cherry-"
SECRET_LENGTH = 32
CHECKSUM_LENGTH = 6
DEFAULT_ORGANIZATION = "org-cherry"
DEFAULT_PROJECT = "proj_default"


class NewKey(NamedTuple):
    """A key as it is shown once."""

    row: ApiKey
    plaintext: str


class NewAdminKey(NamedTuple):
    row: AdminApiKey
    plaintext: str


class KeyOwner(NamedTuple):
    key: ApiKey
    project: Project


class AdminKeyOwner(NamedTuple):
    key: AdminApiKey


def ensure_default_tenant(db: Session) -> Project:
    """Returns the project of a service that nobody has divided. The first call makes it."""
    organization = {"id": DEFAULT_ORGANIZATION, "name": "cherry"}
    db.execute(insert(Organization).values(organization).on_conflict_do_nothing())
    project = {"id": DEFAULT_PROJECT, "organization_id": DEFAULT_ORGANIZATION, "name": "default"}
    db.execute(insert(Project).values(project).on_conflict_do_nothing())
    return db.scalars(select(Project).where(Project.id == DEFAULT_PROJECT)).one()


def create_organization(db: Session, name: str) -> Organization:
    organization = Organization(id=random_id("org-"), name=name)
    db.add(organization)
    db.flush()
    return organization


def create_project(db: Session, organization_id: str, name: str) -> Project:
    project = Project(id=random_id("proj_"), organization_id=organization_id, name=name)
    db.add(project)
    db.flush()
    return project


def is_project(db: Session, organization_id: str, project_id: str) -> bool:
    """Tells whether the organisation has that project, archived or not."""
    own = (Project.id == project_id, Project.organization_id == organization_id)
    return db.scalars(select(Project.id).where(*own)).first() is not None


def create_key(
    db: Session,
    project_id: str,
    name: str,
    *,
    plaintext: str | None = None,
    service_account_id: str | None = None,
    expires_after: timedelta | None = None,
) -> NewKey:
    """Makes a new key for a project. Only its digest is stored: the plaintext cannot be shown again.

    `plaintext` is for keys that come from elsewhere and need no form, such as those of test suites.
    """
    plaintext = plaintext or _new_plaintext()
    row = ApiKey(
        project_id=project_id,
        service_account_id=service_account_id,
        **_columns(name, plaintext, expires_after),
    )
    db.add(row)
    db.flush()
    return NewKey(row, plaintext)


def create_admin_key(
    db: Session,
    organization_id: str,
    name: str,
    *,
    plaintext: str | None = None,
    expires_after: timedelta | None = None,
) -> NewAdminKey:
    """Makes a new key that manages an organisation."""
    plaintext = plaintext or _new_plaintext()
    row = AdminApiKey(organization_id=organization_id, **_columns(name, plaintext, expires_after))
    db.add(row)
    db.flush()
    return NewAdminKey(row, plaintext)


def _columns(name: str, plaintext: str, expires_after: timedelta | None) -> dict[str, Any]:
    return {
        "id": random_id("key_"),
        "name": name,
        "digest": digest(plaintext),
        "redacted": masked(plaintext),
        "expires_at": expiry(expires_after),
    }


def expiry(after: timedelta | None) -> Any:
    """Returns, for a column, the moment that long from now by the database's clock; None for never."""
    return None if after is None else func.now() + after


def list_keys(db: Session, project_id: str) -> list[ApiKey]:
    """Lists a project's keys, oldest first, the revoked ones too."""
    query = select(ApiKey).where(ApiKey.project_id == project_id)
    return list(db.scalars(query.order_by(ApiKey.created_at, ApiKey.id)))


def revoke_key(db: Session, project_id: str, key_id: str) -> bool:
    """Makes a key useless from the next request on. Returns False if there is no such key or it already
    was."""
    own = (ApiKey.id == key_id, ApiKey.project_id == project_id, ApiKey.revoked_at.is_(None))
    revoked = update(ApiKey).where(*own).values(revoked_at=func.now()).returning(ApiKey.id)
    return db.scalars(revoked).first() is not None


def list_admin_keys(db: Session, organization_id: str) -> list[AdminApiKey]:
    """Lists an organisation's admin keys, oldest first, the revoked ones too."""
    query = select(AdminApiKey).where(AdminApiKey.organization_id == organization_id)
    return list(db.scalars(query.order_by(AdminApiKey.created_at, AdminApiKey.id)))


def revoke_admin_key(db: Session, organization_id: str, key_id: str) -> bool:
    """Does as `revoke_key`."""
    own = (AdminApiKey.id == key_id, AdminApiKey.organization_id == organization_id)
    valid = AdminApiKey.revoked_at.is_(None)
    revoked = update(AdminApiKey).where(*own, valid).values(revoked_at=func.now()).returning(AdminApiKey.id)
    return db.scalars(revoked).first() is not None


def find_key(db: Session, plaintext: str) -> KeyOwner | None:
    """Returns whose key this is. Returns None if it is unknown, mistyped, revoked or over, or if its project
    is archived or its service account has no role.

    It is looked up by digest, so that the time taken says nothing about a key.
    """
    if plaintext.startswith(PREFIX) and not is_well_formed(plaintext):
        return None
    row = db.execute(valid_keys().where(ApiKey.digest == digest(plaintext))).first()
    return KeyOwner(*row) if row else None


def valid_keys() -> Select[ApiKey, Project]:
    """Selects the keys that open something, each with the project that it opens."""
    query = select(ApiKey, Project).join(Project, Project.id == ApiKey.project_id)
    query = query.outerjoin(ServiceAccount, ServiceAccount.id == ApiKey.service_account_id)
    has_role = or_(ServiceAccount.role.is_(None), ServiceAccount.role != "none")
    return query.where(*is_valid(ApiKey), Project.archived_at.is_(None), has_role)


def find_admin_key(db: Session, plaintext: str) -> AdminKeyOwner | None:
    """Does the same for keys that manage an organisation."""
    if plaintext.startswith(PREFIX) and not is_well_formed(plaintext):
        return None
    good = (AdminApiKey.digest == digest(plaintext), *is_valid(AdminApiKey))
    key = db.scalars(select(AdminApiKey).where(*good)).first()
    return AdminKeyOwner(key) if key else None


def is_valid(table: type[ApiKey] | type[AdminApiKey]) -> tuple[ColumnElement[bool], ...]:
    """Returns the conditions of a key that is neither revoked nor over."""
    return table.revoked_at.is_(None), or_(table.expires_at.is_(None), table.expires_at > func.now())


def note_use(db: Session, key: ApiKey | AdminApiKey) -> None:
    """Keeps `last_used_at` to the minute; most calls write nothing."""
    table = type(key)
    minute_ago = func.now() - text("interval '1 minute'")
    stale = or_(table.last_used_at.is_(None), table.last_used_at < minute_ago)
    db.execute(update(table).where(table.id == key.id, stale).values(last_used_at=func.now()))


def is_well_formed(plaintext: str) -> bool:
    """Tells whether a key of ours carries the right checksum: mistyped keys need no look-up."""
    secret = plaintext.removeprefix(PREFIX)
    return (
        len(secret) == SECRET_LENGTH + CHECKSUM_LENGTH
        and _checksum(secret[:SECRET_LENGTH]) == secret[SECRET_LENGTH:]
    )


def masked(plaintext: str) -> str:
    """Returns a key as lists and errors show it."""
    if len(plaintext) < 20:
        return "***"
    return f"{plaintext[:12]}...{plaintext[-4:]}"


def _new_plaintext() -> str:
    secret = random_id("", SECRET_LENGTH)
    return PREFIX + secret + _checksum(secret)


def _checksum(secret: str) -> str:
    number, digits = zlib.crc32(secret.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(ALPHANUMERIC))
        digits = ALPHANUMERIC[digit] + digits
    return digits


def digest(plaintext: str) -> bytes:
    """Returns the SHA-256 by which keys are stored and found."""
    return hashlib.sha256(plaintext.encode("utf-8", "surrogateescape")).digest()
