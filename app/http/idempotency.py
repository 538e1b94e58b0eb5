"""The layer within the edge: claims the key of a request, and sends no answer before it is kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import structlog
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth import AdminCaller, Caller
from app.db import unit_of_work
from app.errors import DATABASE_AWAY, BadRequest, IdempotencyKeyInUse, internal_error
from app.idempotency import service
from app.idempotency.route import claim
from app.idempotency.service import LEASE, MAX_KEY, Attempt
from graders import strict_json

log = structlog.get_logger(__name__)

MAX_ANSWER = 2**20
"""A longer answer, like a stream, is sent as it comes and not kept."""


class Idempotency:
    """Carries a POST with an `Idempotency-Key` out once. The edge has checked key and body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        attempt = _attempt(scope) if scope["type"] == "http" else None
        if attempt is None:
            await self.app(scope, receive, send)
            return
        scope["state"]["idempotency"] = attempt
        if not _is_form(scope):
            message = await receive()  # the edge gives the whole body at once
            earlier = await run_in_threadpool(claim, attempt, _fingerprint(scope, message["body"]))
            if earlier:
                await earlier(scope, receive, send)
                return
            receive = _first(message, receive)
        await self._carry_out(attempt, scope, receive, send)

    async def _carry_out(self, attempt: Attempt, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _HeldAnswer(send)
        renewing = asyncio.create_task(_keep_renewing(attempt))
        try:
            await self._answered(scope, receive, answer)
        finally:
            renewing.cancel()
        if attempt.token and not attempt.is_kept:
            await _settle(attempt, answer, is_final=not scope["state"].get("not_final"))
        await answer.release()

    async def _answered(self, scope: Scope, receive: Receive, answer: _HeldAnswer) -> None:
        try:
            await self.app(scope, receive, answer.send)
        except ClientDisconnect:
            raise
        except Exception:
            if answer.is_passing:
                raise
            log.exception("request_failed", path=scope["path"], method=scope["method"])
            answer.forget()
            failed = internal_error(scope["state"]["request_id"]).response()
            await failed(scope, receive, answer.send)


class _HeldAnswer:
    """Holds an answer back until it is kept; lets streams through."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: list[Message] = []
        self._size = 0
        self.is_passing = False

    async def send(self, message: Message) -> None:
        if self.is_passing:
            await self._send(message)
            return
        self._held.append(message)
        self._size += len(message.get("body", b""))
        media = Headers(raw=self._held[0].get("headers", [])).get("content-type", "")
        if self._size > MAX_ANSWER or media.startswith("text/event-stream"):
            self.is_passing = True
            await self.release()

    async def release(self) -> None:
        for message in self._held:
            await self._send(message)
        self._held = []

    def forget(self) -> None:
        self._held = []
        self._size = 0

    def parts(self) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        start = self._held[0]
        media = Headers(raw=start["headers"]).get("content-type", "")
        return start["status"], media, b"".join(message.get("body", b"") for message in self._held[1:])


async def _settle(attempt: Attempt, answer: _HeldAnswer, *, is_final: bool) -> None:
    """Keep an answer that no transaction of the handler has kept, or free the key."""

    def keep(db: Session) -> None:
        service.keep(db, attempt, *answer.parts())

    def give_up(db: Session) -> None:
        service.give_up(db, attempt)

    try:
        await run_in_threadpool(_transact, keep if is_final and not answer.is_passing else give_up)
    except IdempotencyKeyInUse:
        log.warning("idempotency_key_lost", key_length=len(attempt.key))
    except DATABASE_AWAY as problem:  # the lease runs out
        log.warning("answer_not_kept", problem=str(problem))


async def _keep_renewing(attempt: Attempt) -> None:
    while True:
        await asyncio.sleep(LEASE.total_seconds() / 3)
        if attempt.token and not attempt.is_kept:
            with contextlib.suppress(*DATABASE_AWAY):
                await run_in_threadpool(_transact, lambda db: service.renew(db, attempt))


def _transact(act: Callable[[Session], Any]) -> None:
    with unit_of_work() as db:
        act(db)


def _attempt(scope: Scope) -> Attempt | None:
    """The key of a request; None if it carries none or none counts. Raises `BadRequest`."""
    caller = scope["state"].get("caller")
    if scope["method"] != "POST" or not isinstance(caller, Caller | AdminCaller):
        return None
    key = Headers(scope=scope).get("idempotency-key")
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_KEY or not key.isprintable():
        message = f"The Idempotency-Key header must be 1 to {MAX_KEY} printable characters long."
        raise BadRequest(message, code="invalid_idempotency_key")
    owner = caller.project_id or caller.organization_id
    return Attempt(owner, key, scope["path"], scope["state"]["request_id"])


def _is_form(scope: Scope) -> bool:
    return Headers(scope=scope).get("content-type", "").lower().startswith("multipart/form-data")


def _fingerprint(scope: Scope, body: bytes) -> bytes:
    parameters = strict_json.loads(body) if body else None
    return service.fingerprint(scope["method"], scope["path"], scope["query_string"], parameters)


def _first(message: Message, then: Receive) -> Receive:
    """A message that was taken already, then the others."""
    waiting = [message]

    async def receive() -> Message:
        return waiting.pop() if waiting else await then()

    return receive
