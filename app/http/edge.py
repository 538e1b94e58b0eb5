"""The layer before routing checks the key, the query and the body before anything else runs.

The framework reads a whole body before its first dependency, and responds to ordinary hostile JSON with 500s;
so what can be refused early is refused here.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import unquote_to_bytes

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth import KnownKeys
from app.errors import (
    DATABASE_AWAY,
    ApiError,
    BadRequest,
    NotFound,
    RequestTimeout,
    TooLarge,
    TooManyRequests,
    database_away,
    internal_error,
)
from app.http.connections import address_key
from app.http.rate_limit import RateLimiter
from app.http.transaction import STATE, RequestState
from app.ids import ALPHANUMERIC
from app.settings import get_settings
from graders import strict_json

log = structlog.get_logger(__name__)

API = "/v1/"
UPLOADS = re.compile(r"/v1/(files|uploads/[^/]+/parts)|/dashboard/new/upload")
"""Where a multipart body is taken; its handler reads it as it comes."""
MAX_QUERY_BYTES = 4096
BODY_SECONDS = 60.0
"""How long a client may take to send a body that is no upload."""
_CHANCE = random.Random()
"""For ids of requests, which open nothing: to ask the system each time takes longer than the rest here."""
MAX_PARAM = 80
"""Characters of a query's parameter that an error names, as of a body's (`field_path`)."""
CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
HARDENING = {
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-resource-policy": b"same-origin",
}
CSP = b"content-security-policy"
API_CSP = b"default-src 'none'; frame-ancestors 'none'"
PAGES = "/dashboard"
PAGE_CSP = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""Pages load scripts and styles of this service alone, and run nothing that stands in the page itself."""

ErrorPage = Callable[[Request, ApiError], Response | None]
"""Shows an error of a page to whoever reads it; None where the API's body is right."""


class Edge:
    """Outermost ASGI layer of the service."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_json_bytes: int,
        most_of_address: int,
        keys: KnownKeys,
        error_page: ErrorPage,
    ) -> None:
        self.app = app
        self.error_page = error_page
        self.max_json_bytes = max_json_bytes
        self.most_of_address = most_of_address
        self.rates = RateLimiter()
        self.keys = keys
        self._under_way: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = RequestState("req_" + "".join(_CHANCE.choices(ALPHANUMERIC, k=32)))
        scope[STATE] = state
        response = _Response(scope, send, state)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=state.request_id)
        try:
            with self.counted(scope):
                receive = await self._admit(scope, receive, state)
                await self.app(scope, receive, response.send)
        except ApiError as refusal:
            await self._shown(refusal, scope)(scope, receive, response.send)
        except DATABASE_AWAY as problem:  # while the key was looked up
            await self._shown(database_away(problem), scope)(scope, receive, response.send)
        except ClientDisconnect:
            log.info("client_left", path=scope["path"])
        except Exception:
            log.exception("request_failed", path=scope["path"], method=scope["method"])
            if response.status:
                raise  # half a response is out: only cutting the connection tells the client
            await self._shown(internal_error(state.request_id), scope)(scope, receive, response.send)
        finally:
            response.log()

    def _shown(self, error: ApiError, scope: Scope) -> Response:
        shown = self.error_page(Request(scope), error) if scope["path"].startswith(PAGES) else None
        return shown or error.response()

    @contextmanager
    def counted(self, scope: Scope) -> Iterator[None]:
        """Counts the requests under way of an address; a trusted proxy has already said whose it is."""
        address = address_key(scope["client"][0]) if scope.get("client") else ""
        if self._under_way[address] >= self.most_of_address:
            message = "Too many requests of this address are under way. Try again once some have ended."
            raise TooManyRequests(message, headers={"retry-after": "1"})
        self._under_way[address] += 1
        try:
            yield
        finally:
            self._under_way[address] -= 1
            if not self._under_way[address]:
                del self._under_way[address]

    async def _admit(self, scope: Scope, receive: Receive, state: RequestState) -> Receive:
        """Checks a request. Returns a `receive` that gives the handler the checked body."""
        headers = Headers(scope=scope)
        _check_target(scope)
        _check_client_request_id(headers)
        is_api = scope["path"].startswith(API)
        if is_api:
            await self._identify(headers, state)
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return receive
        if UPLOADS.fullmatch(scope["path"]) and _media_type(headers) == "multipart/form-data":
            return receive
        body = await self._whole_body(headers, receive)
        if is_api and body:  # the client sends JSON's content type with empty bodies too
            await self._check_json(headers, body)
        return _replay(body, receive)

    async def _identify(self, headers: Headers, state: RequestState) -> None:
        """Finds out who asks, and whether it may ask so often."""
        caller = state.caller = await self.keys.caller(headers)
        settings = get_settings()
        if limit := settings.requests_per_minute:
            grant = await run_in_threadpool(self.rates.take, caller.key_id, limit, settings.broker_url)
            state.rate_headers = grant.headers()
            grant.check()

    async def _whole_body(self, headers: Headers, receive: Receive) -> bytes:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await self._read(headers, receive)
        except TimeoutError:
            raise RequestTimeout(f"The request body did not arrive within {BODY_SECONDS:.0f} s.") from None

    async def _check_json(self, headers: Headers, body: bytes) -> None:
        media = _media_type(headers)
        if media != "application/json":
            message = f"Unsupported content type: '{media[:80]}'. This call takes 'application/json'."
            raise BadRequest(message, code="unsupported_content_type")
        try:
            await run_in_threadpool(strict_json.loads, body)
        except strict_json.StrictJsonError as fault:
            message = f"We could not parse the JSON body of your request: {fault}."
            is_number = isinstance(fault, strict_json.NotANumber)
            param = strict_json.path_of_no_number(body) if is_number else None
            raise BadRequest(message, param=param, code="invalid_json") from None

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        """Returns the whole body, refused as soon as it is known to be too large."""
        told = headers.get("content-length", "0")
        self._check_size(int(told) if told.isdecimal() else 0)
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            self._check_size(len(body))
            if not message.get("more_body", False):
                return bytes(body)

    def _check_size(self, size: int) -> None:
        if size > self.max_json_bytes:
            raise TooLarge(f"The request body is too large: at most {self.max_json_bytes} bytes are taken.")


class _Response:
    """Puts our headers on a response, whatever made it, and remembers how it went."""

    def __init__(self, scope: Scope, send: Send, state: RequestState) -> None:
        self.status = 0
        self._scope = scope
        self._state = state
        self._send = send
        self._started = time.perf_counter()
        self._is_api = scope["path"].startswith(API)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = dict(message["headers"])
            always = self._headers()
            kept = [header for header in message["headers"] if header[0] not in always]
            added = [header for header in self._default_headers().items() if header[0] not in given]
            message["headers"] = [*kept, *always.items(), *added]
        await self._send(message)

    def log(self) -> None:
        caller, headers = self._state.caller, Headers(scope=self._scope)
        log.info(
            "request",
            method=self._scope["method"],
            path=self._scope["path"],
            status=self.status,
            milliseconds=self._milliseconds(),
            project_id=caller.project_id if caller else None,
            retry=headers.get("x-stainless-retry-count"),
            client_request_id=headers.get("x-client-request-id"),
        )

    def _headers(self) -> dict[bytes, bytes]:
        """Returns the headers that only this layer gives."""
        state = self._state
        headers = {b"x-request-id": state.request_id.encode()}
        if self._is_api:
            headers[b"openai-version"] = b"2020-10-01"
            headers[b"openai-processing-ms"] = b"%d" % self._milliseconds()
        if state.rate_headers:
            for name, value in state.rate_headers.items():
                headers[name.encode()] = value.encode()
        if caller := state.caller:
            headers[b"openai-organization"] = caller.organization_id.encode()
        return headers

    def _default_headers(self) -> dict[bytes, bytes]:
        """Returns the headers of which a handler may know better."""
        headers = {**HARDENING, CSP: PAGE_CSP if self._scope["path"].startswith(PAGES) else API_CSP}
        if self._scope["scheme"] == "https":
            headers[b"strict-transport-security"] = b"max-age=31536000"
        return headers

    def _milliseconds(self) -> int:
        return round((time.perf_counter() - self._started) * 1000)


def _check_target(scope: Scope) -> None:
    """Refuses a path or query that, decoded, is no text without control characters: Postgres takes no NUL."""
    if not _is_plain_text(unquote_to_bytes(scope.get("raw_path") or scope["path"].encode())):
        raise NotFound("Invalid URL: the path holds characters that no path here has.")
    query: bytes = scope["query_string"]
    if len(query) > MAX_QUERY_BYTES:
        message = f"The query string is too long: at most {MAX_QUERY_BYTES} bytes are taken."
        raise BadRequest(message, code="string_above_max_length")
    for pair in query.split(b"&"):
        if not _is_plain_text(unquote_to_bytes(pair)):
            message = "The query string holds control characters or is not UTF-8."
            param = unquote_to_bytes(pair.partition(b"=")[0])
            known = param.decode()[:MAX_PARAM] if _is_plain_text(param) else None
            raise BadRequest(message, param=known, code="invalid_value")


def _check_client_request_id(headers: Headers) -> None:
    value = headers.get("x-client-request-id", "")
    if len(value) > 512 or not value.isascii():
        raise BadRequest("The X-Client-Request-Id header must be ASCII and at most 512 characters long.")


def _is_plain_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return CONTROL.search(data) is None


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").split(";")[0].strip().lower()


def _replay(body: bytes, then: Receive) -> Receive:
    """Returns a `receive` that gives a body which was already read; afterwards `then` tells of the client."""
    told = False

    async def receive() -> Message:
        nonlocal told
        if told:
            return await then()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
