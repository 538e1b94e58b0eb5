"""Who is asking, and with which database session: what nearly every handler needs."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any

from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app.db import ENDING_THREADS, begin, commit, on_lookup_thread, unit_of_work
from app.errors import Forbidden, Unauthorized
from app.idempotency.service import keep_answer
from app.tenants import service as tenants
from app.tenants.models import Project

BEARER = "bearer "
MAX_KNOWN = 10_000


@dataclass(frozen=True)
class Caller:
    """The key of a request, reduced to what it may see."""

    key_id: str
    project_id: str
    organization_id: str


@dataclass(frozen=True)
class AdminCaller:
    """An admin key: it manages the projects of its organisation and belongs to none of them."""

    key_id: str
    organization_id: str
    project_id: None = field(default=None, init=False)


async def get_db(request: Request) -> AsyncIterator[Session]:
    """The transaction of one request.

    Most handlers end it on their own thread (`KeptRoute`). Here it is rolled back after a failure, or
    committed with the answer if that is to be kept; on threads of its own, so that no request which holds a
    connection waits behind requests that wait for one.
    """
    state = request.scope["state"]
    db = begin()
    db.info["keeps_answer"] = state.get("idempotency") is not None
    try:
        yield db
    except BaseException:
        with CancelScope(shield=True):  # the client may have left
            await to_thread.run_sync(db.close, limiter=_enders())
        raise
    if db.in_transaction():
        await to_thread.run_sync(_commit_with_answer, db, state, limiter=_enders())


def _commit_with_answer(db: Session, state: Mapping[str, Any]) -> None:
    try:
        keep_answer(db, state)
    except BaseException:
        db.close()
        raise
    commit(db)


@lru_cache
def _enders() -> CapacityLimiter:
    return CapacityLimiter(ENDING_THREADS)


Db = Annotated[Session, Depends(get_db, scope="function")]
"""Commits before the answer is sent: the default scope would commit once the client has its answer."""


async def current_caller(request: Request) -> Caller:
    """The caller whom the edge has found (app/http/edge.py)."""
    caller = request.scope["state"]["caller"]
    if isinstance(caller, AdminCaller):
        message = "This call needs the key of a project; the key that was sent is an admin key."
        raise Forbidden(message, code="insufficient_permissions")
    assert isinstance(caller, Caller)
    return caller


CurrentCaller = Annotated[Caller, Depends(current_caller)]


async def current_admin(request: Request) -> AdminCaller:
    """The caller of calls that manage an organisation."""
    caller = request.scope["state"]["caller"]
    if isinstance(caller, Caller):
        message = "This call needs an admin key; the key that was sent is the key of a project."
        raise Forbidden(message, code="insufficient_permissions")
    assert isinstance(caller, AdminCaller)
    return caller


CurrentAdmin = Annotated[AdminCaller, Depends(current_admin)]


async def current_actor(request: Request) -> Caller | AdminCaller:
    """The caller of calls that take either kind of key."""
    caller = request.scope["state"]["caller"]
    assert isinstance(caller, Caller | AdminCaller)
    return caller


CurrentActor = Annotated[Caller | AdminCaller, Depends(current_actor)]


def project_of_key(db: Session, plaintext: str) -> Project | None:
    """The project that a key opens; None if it opens none."""
    owner = tenants.find_key(db, plaintext)
    return owner.project if owner else None


class KnownKeys:
    """The callers of keys that were looked up a moment ago: a poller's next request asks nobody.

    So a key that was revoked, in whatever process, is useless `seconds` later. For one event loop.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._found: dict[bytes, tuple[float, Caller | AdminCaller]] = {}
        self._asking: dict[bytes, asyncio.Task[Caller | AdminCaller]] = {}

    async def caller(self, headers: Mapping[str, str]) -> Caller | AdminCaller:
        """Who sent these headers. Raises `Unauthorized`."""
        digest = _digest(headers)
        asked_at, caller = self._found.get(digest, (-math.inf, None))
        if caller is not None and self._clock() - asked_at < self._seconds:
            return caller
        if not self._seconds:
            return await on_lookup_thread(authenticate, headers)
        if digest not in self._asking:  # one asks for all requests of a key that come together
            self._asking[digest] = asyncio.create_task(self._ask(digest, headers))
        return await asyncio.shield(self._asking[digest])

    async def _ask(self, digest: bytes, headers: Mapping[str, str]) -> Caller | AdminCaller:
        asked_at = self._clock()
        try:
            caller = await on_lookup_thread(authenticate, headers)
        finally:
            del self._asking[digest]
        if len(self._found) >= MAX_KNOWN:
            self._found.clear()
        self._found[digest] = (asked_at, caller)
        return caller


def authenticate(headers: Mapping[str, str]) -> Caller | AdminCaller:
    """Find the caller of a request in a transaction of its own. Raises `Unauthorized`."""
    plaintext = _bearer(headers)
    with unit_of_work() as db:
        found = tenants.find_key(db, plaintext) or tenants.find_admin_key(db, plaintext)
        if found is None:
            message = f"Incorrect API key provided: {tenants.masked(plaintext)}."
            raise Unauthorized(message, code="invalid_api_key")
        used = found.key.last_used_at
        if used is None or used < datetime.now(UTC) - timedelta(minutes=1):
            tenants.note_use(db, found.key)
        if isinstance(found, tenants.KeyOwner):
            caller: Caller | AdminCaller = Caller(
                found.key.id, found.project.id, found.project.organization_id
            )
        else:
            caller = AdminCaller(found.key.id, found.key.organization_id)
        _check_tenant(db, caller, headers)
    return caller


def _digest(headers: Mapping[str, str]) -> bytes:
    """Of all that `authenticate` looks at."""
    tenant = (headers.get("openai-organization"), headers.get("openai-project"))
    return hashlib.sha256(repr((_bearer(headers), *tenant)).encode()).digest()


def _bearer(headers: Mapping[str, str]) -> str:
    """Everything after "Bearer ": a key may hold spaces."""
    header = headers.get("authorization", "")
    key = header[len(BEARER) :].strip() if header[: len(BEARER)].lower() == BEARER else ""
    if not key:
        raise Unauthorized(
            "You didn't provide an API key. Send it in the Authorization header, as 'Bearer YOUR_KEY'."
        )
    return key


def _check_tenant(db: Session, caller: Caller | AdminCaller, headers: Mapping[str, str]) -> None:
    if headers.get("openai-organization", caller.organization_id) != caller.organization_id:
        message = "This key is not of the organization that the OpenAI-Organization header names."
        raise Unauthorized(message, code="invalid_organization")
    named = headers.get("openai-project")
    if named is None or named == caller.project_id:
        return
    if caller.project_id is None and tenants.is_project(db, caller.organization_id, named):
        return
    message = "This key is not of the project that the OpenAI-Project header names."
    raise Unauthorized(message, code="invalid_project")
