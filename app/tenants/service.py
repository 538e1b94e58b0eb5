"""Organisations, projects and keys: made by an operator (`cherry keys`), read on every request."""

from __future__ import annotations

import hashlib
import zlib
from typing import NamedTuple

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.ids import ALPHANUMERIC, random_id
from app.tenants.models import ApiKey, Organization, Project

PREFIX = "sk-cherry-"
SECRET_LENGTH = 32
CHECKSUM_LENGTH = 6
DEFAULT_ORGANIZATION = "org-cherry"
DEFAULT_PROJECT = "proj_default"


class NewKey(NamedTuple):
    """A key as it is shown once."""

    row: ApiKey
    plaintext: str


class KeyOwner(NamedTuple):
    key: ApiKey
    project: Project


def ensure_default_tenant(db: Session) -> Project:
    """The project of a service that nobody has divided: made at the first call, then found."""
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


def create_key(db: Session, project_id: str, name: str, *, plaintext: str | None = None) -> NewKey:
    """A new key for a project. Only its digest is stored: the plaintext cannot be shown again.

    `plaintext` is for keys that come from elsewhere and need no form, such as those of test suites.
    """
    plaintext = plaintext or _new_plaintext()
    row = ApiKey(
        id=random_id("key_"),
        project_id=project_id,
        name=name,
        digest=_digest(plaintext),
        redacted=masked(plaintext),
    )
    db.add(row)
    db.flush()
    return NewKey(row, plaintext)


def list_keys(db: Session, project_id: str) -> list[ApiKey]:
    """A project's keys, oldest first, the revoked ones too."""
    query = select(ApiKey).where(ApiKey.project_id == project_id)
    return list(db.scalars(query.order_by(ApiKey.created_at, ApiKey.id)))


def revoke_key(db: Session, project_id: str, key_id: str) -> bool:
    """Make a key useless from the next request on; False if there is no such key or it already was."""
    own = (ApiKey.id == key_id, ApiKey.project_id == project_id, ApiKey.revoked_at.is_(None))
    revoked = update(ApiKey).where(*own).values(revoked_at=func.now()).returning(ApiKey.id)
    return db.scalars(revoked).first() is not None


def find_key(db: Session, plaintext: str) -> KeyOwner | None:
    """Whose key this is; None if it is unknown, mistyped or revoked. Looked up by digest, so that the
    time taken says nothing about a key."""
    if plaintext.startswith(PREFIX) and not is_well_formed(plaintext):
        return None
    query = select(ApiKey, Project).join(Project, Project.id == ApiKey.project_id)
    row = db.execute(query.where(ApiKey.digest == _digest(plaintext), ApiKey.revoked_at.is_(None))).first()
    return KeyOwner(*row) if row else None


def note_use(db: Session, key_id: str) -> None:
    """Keep `last_used_at` to the minute; most calls write nothing."""
    minute_ago = func.now() - text("interval '1 minute'")
    stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < minute_ago)
    db.execute(update(ApiKey).where(ApiKey.id == key_id, stale).values(last_used_at=func.now()))


def is_well_formed(plaintext: str) -> bool:
    """True if a key of ours carries the right checksum: mistyped keys need no look-up."""
    secret = plaintext.removeprefix(PREFIX)
    return (
        len(secret) == SECRET_LENGTH + CHECKSUM_LENGTH
        and _checksum(secret[:SECRET_LENGTH]) == secret[SECRET_LENGTH:]
    )


def masked(plaintext: str) -> str:
    """A key as lists and errors show it."""
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


def _digest(plaintext: str) -> bytes:
    return hashlib.sha256(plaintext.encode("utf-8", "surrogateescape")).digest()
