"""The layer within the edge: it claims the key of a request, and sends no response before it is kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.db import unit_of_work
from app.errors import DATABASE_AWAY, BadRequest, IdempotencyKeyInUse, internal_error
from app.http.transaction import RequestState, claim, state_of
from app.idempotency import service
from app.idempotency.service import LEASE, MAX_KEY, KeyedRequest
from graders import strict_json

log = structlog.get_logger(__name__)

MAX_KEPT_BYTES = 2**20
"""A longer response, like a stream, is sent as it comes and not kept."""


class Idempotency:
    """Carries out a POST with an `Idempotency-Key` once. The edge has checked the API key and the body."""

    def __init__(self, app: ASGIApp, lease: timedelta = LEASE) -> None:
        self.app = app
        self.lease = lease

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        state = state_of(scope)
        keyed = state.keyed = _keyed(scope, state, self.lease)
        if keyed is None:
            await self.app(scope, receive, send)
            return
        if not _is_form(scope):
            message = await receive()  # the edge gives the whole body at once
            earlier = await run_in_threadpool(claim, keyed, _fingerprint(scope, message["body"]))
            if earlier:
                await earlier(scope, receive, send)
                return
            receive = _first(message, receive)
        await self._carry_out(keyed, scope, receive, send)

    async def _carry_out(self, keyed: KeyedRequest, scope: Scope, receive: Receive, send: Send) -> None:
        response = _HeldResponse(send)
        renewing = asyncio.create_task(_keep_renewing(keyed))
        try:
            await self._respond(scope, receive, response)
        finally:
            renewing.cancel()
        if keyed.token and not keyed.is_kept:
            await _settle(keyed, response, is_final=state_of(scope).is_final)
        await response.release()

    async def _respond(self, scope: Scope, receive: Receive, response: _HeldResponse) -> None:
        try:
            await self.app(scope, receive, response.send)
        except ClientDisconnect:
            raise
        except Exception:
            if response.is_passing:
                raise
            log.exception("request_failed", path=scope["path"], method=scope["method"])
            response.forget()
            failed = internal_error(state_of(scope).request_id).response()
            await failed(scope, receive, response.send)


class _HeldResponse:
    """Holds a response back until it is kept; lets streams through, but for their end.

    Who has the end of a stream may send the same key again, which must be free by then.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: list[Message] = []
        self._size = 0
        self.is_passing = False

    async def send(self, message: Message) -> None:
        if self.is_passing and (message["type"] == "http.response.start" or message.get("more_body")):
            await self._send(message)
            return
        self._held.append(message)
        if self.is_passing:
            return
        self._size += len(message.get("body", b""))
        media = Headers(raw=self._held[0].get("headers", [])).get("content-type", "")
        if self._size > MAX_KEPT_BYTES or media.startswith("text/event-stream"):
            self.is_passing = True
            held, self._held = self._held, []
            for each in held:
                await self.send(each)

    async def release(self) -> None:
        for message in self._held:
            await self._send(message)
        self._held = []

    def forget(self) -> None:
        self._held = []
        self._size = 0

    def parts(self) -> tuple[int, str, bytes]:
        """Returns status, content type and body."""
        start = self._held[0]
        media = Headers(raw=start["headers"]).get("content-type", "")
        return start["status"], media, b"".join(message.get("body", b"") for message in self._held[1:])


async def _settle(keyed: KeyedRequest, response: _HeldResponse, *, is_final: bool) -> None:
    """Keeps a response that no transaction of the handler has kept, or frees the key."""

    def keep(db: Session) -> None:
        service.keep(db, keyed, *response.parts())

    def give_up(db: Session) -> None:
        service.give_up(db, keyed)

    try:
        await run_in_threadpool(_transact, keep if is_final and not response.is_passing else give_up)
    except IdempotencyKeyInUse:
        log.warning("idempotency_key_lost", key_length=len(keyed.key))
    except DATABASE_AWAY as problem:  # the lease runs out
        log.warning("response_not_kept", problem=str(problem))


async def _keep_renewing(keyed: KeyedRequest) -> None:
    while True:
        await asyncio.sleep(keyed.lease.total_seconds() / 3)
        if keyed.token and not keyed.is_kept:
            with contextlib.suppress(*DATABASE_AWAY):
                await run_in_threadpool(_transact, lambda db: service.renew(db, keyed))


def _transact(act: Callable[[Session], Any]) -> None:
    with unit_of_work() as db:
        act(db)


def _keyed(scope: Scope, state: RequestState, lease: timedelta) -> KeyedRequest | None:
    """Reads the key of a POST. Returns None if it carries none, or none counts. Raises `BadRequest`."""
    caller = state.caller
    if caller is None:
        return None
    key = Headers(scope=scope).get("idempotency-key")
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_KEY or not key.isprintable():
        message = f"The Idempotency-Key header must be 1 to {MAX_KEY} printable characters long."
        raise BadRequest(message, code="invalid_idempotency_key")
    owner = caller.project_id or caller.organization_id
    return KeyedRequest(owner, key, scope["path"], state.request_id, lease=lease)


def _is_form(scope: Scope) -> bool:
    return Headers(scope=scope).get("content-type", "").lower().startswith("multipart/form-data")


def _fingerprint(scope: Scope, body: bytes) -> bytes:
    parameters = strict_json.loads(body) if body else None
    return service.fingerprint(scope["method"], scope["path"], scope["query_string"], parameters)


def _first(message: Message, then: Receive) -> Receive:
    """Returns a `receive` that gives a message which was taken already, then the others."""
    waiting = [message]

    async def receive() -> Message:
        return waiting.pop() if waiting else await then()

    return receive
