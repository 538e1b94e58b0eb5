"""Who is asking, and with which database session: what nearly every handler needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.errors import Unauthorized
from app.idempotency.service import keep_answer
from app.tenants import service as tenants
from app.tenants.models import Project

BEARER = "bearer "


@dataclass(frozen=True)
class Caller:
    """The key of a request, reduced to what it may see."""

    key_id: str
    project_id: str
    organization_id: str


def get_db(request: Request) -> Iterator[Session]:
    """The transaction of one request, with the answer if that is to be kept."""
    with unit_of_work() as db:
        yield db
        keep_answer(db, request.scope["state"])


Db = Annotated[Session, Depends(get_db, scope="function")]
"""Commits before the answer is sent: the default scope would commit once the client has its answer."""


def current_caller(request: Request) -> Caller:
    """The caller whom the edge has found (app/edge.py)."""
    caller = request.scope["state"]["caller"]
    assert isinstance(caller, Caller)
    return caller


CurrentCaller = Annotated[Caller, Depends(current_caller)]


def project_of_key(db: Session, plaintext: str) -> Project | None:
    """The project that a key opens; None if it opens none."""
    owner = tenants.find_key(db, plaintext)
    return owner.project if owner else None


def authenticate(headers: Mapping[str, str]) -> Caller:
    """Find the caller of a request in a transaction of its own. Raises `Unauthorized`."""
    plaintext = _bearer(headers)
    with unit_of_work() as db:
        owner = tenants.find_key(db, plaintext)
        if owner is None:
            message = f"Incorrect API key provided: {tenants.masked(plaintext)}."
            raise Unauthorized(message, code="invalid_api_key")
        used = owner.key.last_used_at
        if used is None or used < datetime.now(UTC) - timedelta(minutes=1):
            tenants.note_use(db, owner.key.id)
        caller = Caller(owner.key.id, owner.project.id, owner.project.organization_id)
    _check_tenant(caller, headers)
    return caller


def _bearer(headers: Mapping[str, str]) -> str:
    """Everything after "Bearer ": a key may hold spaces."""
    header = headers.get("authorization", "")
    key = header[len(BEARER) :].strip() if header[: len(BEARER)].lower() == BEARER else ""
    if not key:
        raise Unauthorized(
            "You didn't provide an API key. Send it in the Authorization header, as 'Bearer YOUR_KEY'."
        )
    return key


def _check_tenant(caller: Caller, headers: Mapping[str, str]) -> None:
    if headers.get("openai-organization", caller.organization_id) != caller.organization_id:
        message = "This key is not of the organization that the OpenAI-Organization header names."
        raise Unauthorized(message, code="invalid_organization")
    if headers.get("openai-project", caller.project_id) != caller.project_id:
        message = "This key is not of the project that the OpenAI-Project header names."
        raise Unauthorized(message, code="invalid_project")
