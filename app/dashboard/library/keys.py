"""Serves the keys of the project. As in the API they are an admin's: each action is given an admin key, which
is kept nowhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from sqlalchemy.orm import Session

from app.dashboard import sign_in
from app.dashboard.shown import FROM_HERE, page, to_login
from app.db import unit_of_work
from app.errors import ApiError, Forbidden, NotFound, RateLimited
from app.organization import service as organization
from app.tenants import service as tenants
from app.tenants.models import Project

KEYS = 1000

router = APIRouter()
AdminKey = Annotated[str, Form(max_length=512)]
Act = Callable[[Session, Project], str | None]
"""Does something, and returns a new key where it makes one."""


class _NotAdmin(Forbidden):
    """What was typed opens no organization, or another one than this project's."""

    code = "insufficient_permissions"

    def __init__(self) -> None:
        super().__init__(
            "That is no admin key of this project's organization. `cherry keys create --admin` makes one."
        )


@router.get("/settings/keys")
def keys_page(request: Request) -> Response:
    """Asks for an admin key."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        return page(request, project, "library/keys.html")


@router.post("/settings/keys/list", dependencies=FROM_HERE)
def list_keys(request: Request, admin_key: AdminKey = "") -> Response:
    """Shows the project's keys to whoever has an admin key."""
    return _acted(request, admin_key, lambda _db, _project: None)


@router.post("/settings/keys/create", dependencies=FROM_HERE)
def create_key(
    request: Request, admin_key: AdminKey = "", name: Annotated[str, Form(max_length=256)] = ""
) -> Response:
    """Makes a service account with a key, which is shown in this answer only."""

    def make(db: Session, project: Project) -> str:
        if not name.strip():
            raise NotFound("Give the key a name, which tells you later what it is for.", param="name")
        made = organization.create_account(
            db, project.organization_id, project.id, name.strip(), with_key=True, expires_after=None
        )
        assert made.key is not None
        return made.key.plaintext

    return _acted(request, admin_key, make)


@router.post("/settings/keys/{key_id}/revoke", dependencies=FROM_HERE)
def revoke_key(request: Request, key_id: str, admin_key: AdminKey = "") -> Response:
    """Makes a key useless at once."""

    def revoke(db: Session, project: Project) -> None:
        organization.delete_key(db, project.organization_id, project.id, key_id)

    return _acted(request, admin_key, revoke)


def _acted(request: Request, admin_key: str, act: Act) -> Response:
    """Does something as an admin, and shows the keys as they are then, or what went wrong."""
    grant = sign_in.attempt(request)
    problem: ApiError | None = None
    made: str | None = None
    with unit_of_work() as db:
        owner = sign_in.owner(request, db)
        if owner is None:
            return to_login(request)
        project, own_key = owner.project, owner.key.id
        admin = tenants.find_admin_key(db, admin_key.strip()) if grant.is_granted else None
        is_admin = admin is not None and admin.key.organization_id == project.organization_id
    if not grant.is_granted:
        problem = RateLimited(f"Too many wrong keys. Try again in {math.ceil(grant.wait)} s.")
    elif not is_admin:
        problem = _NotAdmin()
    else:
        sign_in.succeeded(request)
        try:
            with unit_of_work() as db:
                made = act(db, project)
        except ApiError as refused:
            problem = refused
    with unit_of_work() as db:
        found = (
            organization.list_keys(
                db, project.organization_id, project.id, access="any", after=None, limit=KEYS
            ).rows
            if is_admin
            else None
        )
        shown = page(
            request,
            project,
            "library/key_list.html",
            keys=found,
            own_key=own_key,
            made=made,
            problem=problem,
            status_code=problem.status if problem else 200,
        )
    shown.headers["cache-control"] = "no-store"
    return shown
