"""Finds out who is asking: looks up the caller to whom a key belongs, or remembers it."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from app.db import on_lookup_thread, unit_of_work
from app.errors import Unauthorized
from app.tenants import service as tenants

BEARER = "bearer "
AZURE_KEY = "api-key"
"""The header that Azure's clients send a key in."""
MAX_KNOWN = 10_000
WHENCE = (  # in the answer to a key that opens nothing
    "Keys of this service are made with `cherry keys create`, or with an admin key for service accounts of a"
    " project; `cherry up` prints the first one. Keys of OpenAI do not open it."
)


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


class KnownKeys:
    """Remembers the callers of keys that were looked up a moment ago, so that a poller's next request asks
    nobody.

    A key that was revoked, in whatever process, is therefore useless only `seconds` later. One of these
    serves one event loop.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._found: dict[bytes, tuple[float, Caller | AdminCaller]] = {}
        self._asking: dict[bytes, asyncio.Task[Caller | AdminCaller]] = {}

    async def caller(self, headers: Mapping[str, str]) -> Caller | AdminCaller:
        """Returns the caller who sent these headers. Raises `Unauthorized`."""
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
    """Finds the caller of a request in a transaction of its own. Raises `Unauthorized`."""
    plaintext = _bearer(headers)
    with unit_of_work() as db:
        found = tenants.find_key(db, plaintext) or tenants.find_admin_key(db, plaintext)
        if found is None:
            message = f"Incorrect API key provided: {tenants.masked(plaintext)}. {WHENCE}"
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
    """Returns a digest of all that `authenticate` looks at."""
    tenant = (headers.get("openai-organization"), headers.get("openai-project"))
    return hashlib.sha256(repr((_bearer(headers), *tenant)).encode()).digest()


def _bearer(headers: Mapping[str, str]) -> str:
    """Returns everything after "Bearer ", as a key may hold spaces; or else what Azure's clients send."""
    header = headers.get("authorization", "")
    key = header[len(BEARER) :].strip() if header[: len(BEARER)].lower() == BEARER else ""
    key = key or headers.get(AZURE_KEY, "").strip()
    if not key:
        raise Unauthorized(
            "You didn't provide an API key. Send it in the Authorization header, as 'Bearer YOUR_KEY',"
            " or in api-key, as Azure's clients do. " + WHENCE
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
