"""A request's transaction from its first end to its last, and what the layers of a request know of it.

A request has one transaction, which ends before its response is sent. It ends in one of three places:

1. `KeptRoute` commits on the thread that ran the handler. Most requests end here.
2. `get_db` rolls back after a failure. It commits too where the response is kept with what the handler did
   (`Idempotency-Key`): the response is known only once the handler's thread is given back.
3. A handler that moves bytes has short transactions of its own; it calls `claim_form` and `keep_response`.

A `PolledRoute` has no transaction at all. Decision 0014 says why; `app/http/idempotency.py` is the layer that
claims keys before any of this runs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from app.auth import AdminCaller, Caller
from app.db import ENDING_THREADS, UnitOfWork, commit, unit_of_work
from app.errors import Forbidden
from app.idempotency import service as idempotency
from app.idempotency.service import KeyedRequest

STATE = "cherry.request"


@dataclass(slots=True)
class RequestState:
    """What the layers of one request tell each other. The edge makes it and puts it into the ASGI scope."""

    request_id: str
    caller: Caller | AdminCaller | None = None
    """Whom the edge has found; None outside /v1."""
    rate_headers: Mapping[str, str] | None = None
    keyed: KeyedRequest | None = None
    """The claim on the request's `Idempotency-Key`; None if it carries none."""
    response: Response | None = None
    """What the handler has returned, unless it is a stream."""
    is_final: bool = True
    """Repeating the request is pointless, so its response may be kept for its key."""

    def project_caller(self) -> Caller:
        """Returns the caller of a project. Raises `Forbidden` for an admin key."""
        if isinstance(self.caller, AdminCaller):
            message = "This call needs the key of a project; the key that was sent is an admin key."
            raise Forbidden(message, code="insufficient_permissions")
        assert self.caller is not None
        return self.caller

    def admin_caller(self) -> AdminCaller:
        """Returns the caller of an organisation. Raises `Forbidden` for a project's key."""
        if isinstance(self.caller, Caller):
            message = "This call needs an admin key; the key that was sent is the key of a project."
            raise Forbidden(message, code="insufficient_permissions")
        assert self.caller is not None
        return self.caller


def state_of(scope: Scope) -> RequestState:
    """Returns the state that the edge has put into a request's scope."""
    state: RequestState = scope[STATE]
    return state


async def current_caller(request: Request) -> Caller:
    return state_of(request.scope).project_caller()


async def current_admin(request: Request) -> AdminCaller:
    return state_of(request.scope).admin_caller()


async def current_actor(request: Request) -> Caller | AdminCaller:
    caller = state_of(request.scope).caller
    assert caller is not None
    return caller


CurrentCaller = Annotated[Caller, Depends(current_caller)]
CurrentAdmin = Annotated[AdminCaller, Depends(current_admin)]
"""The caller of calls that manage an organisation."""
CurrentActor = Annotated[Caller | AdminCaller, Depends(current_actor)]
"""The caller of calls that take either kind of key."""


class RequestTransaction(UnitOfWork):
    """The session of one request."""

    def __init__(self, state: RequestState) -> None:
        super().__init__()
        self.state = state


async def get_db(request: Request) -> AsyncIterator[Session]:
    """Gives a handler its session, and ends the transaction if `KeptRoute` has not.

    It ends it on threads of their own, so that no request which holds a connection waits behind requests that
    wait for one.
    """
    db = RequestTransaction(state_of(request.scope))
    try:
        yield db
    except BaseException:
        with CancelScope(shield=True):  # the client may have left
            await to_thread.run_sync(db.close, limiter=_enders())
        raise
    if db.in_transaction():
        await to_thread.run_sync(_commit_with_response, db, limiter=_enders())


def _commit_with_response(db: RequestTransaction) -> None:
    keyed, response = db.state.keyed, db.state.response
    try:
        if keyed and keyed.token and response is not None:
            media_type = response.media_type or ""
            idempotency.keep(db, keyed, response.status_code, media_type, bytes(response.body))
    except BaseException:
        db.close()
        raise
    commit(db)


@functools.lru_cache
def _enders() -> CapacityLimiter:
    return CapacityLimiter(ENDING_THREADS)


Db = Annotated[Session, Depends(get_db, scope="function")]
"""Ends before the response is sent: FastAPI's default scope would commit once the client has its response."""


class KeptRoute(APIRoute):
    """The class of every route below /v1: `APIRouter(route_class=KeptRoute)`.

    It commits the transaction of a handler (its argument `db`) on the handler's thread. Where the response is
    to be kept in the transaction, `get_db` commits instead, and finds the response in the request's state.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        if "db" in inspect.signature(endpoint).parameters and not inspect.iscoroutinefunction(endpoint):
            endpoint = _committing(endpoint)
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_and_show(request: Request) -> Response:
            response = await handle(request)
            if hasattr(response, "body"):  # no stream
                state_of(request.scope).response = response
            return response

        return handle_and_show


def _committing(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(endpoint)
    def handle(*args: Any, db: RequestTransaction, **values: Any) -> Any:
        result = endpoint(*args, db=db, **values)
        if db.state.keyed is None:
            commit(db)
        return result

    return handle


class PolledRoute(APIRoute):
    """A GET whose handler `(request, caller, **parts of the path)` gives a finished response.

    FastAPI knows it as any other route, but does not call it: its way to a handler costs more than the read.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        caller = state_of(scope).project_caller()
        response: Response = await self.endpoint(Request(scope), caller=caller, **scope["path_params"])
        await response(scope, receive, send)


async def claim_form(request: Request, parameters: Any) -> Response | None:
    """Claims the key of a request whose handler reads a form itself, once its parameters are known.

    Returns the response of an earlier request, if there was one; None if this one is to be carried out.
    """
    state = state_of(request.scope)
    if state.keyed is None:
        return None
    scope = request.scope
    fingerprint = idempotency.fingerprint(scope["method"], scope["path"], scope["query_string"], parameters)
    return await run_in_threadpool(claim, state.keyed, fingerprint)


def claim(keyed: KeyedRequest, fingerprint: bytes) -> Response | None:
    """Claims a key in a transaction of its own. Returns as `claim_form` does."""
    with unit_of_work() as db:
        kept = idempotency.begin(db, keyed, fingerprint)
    if kept is None:
        return None
    headers = {"idempotent-replayed": "true", "original-request": kept.request_id}
    return Response(kept.body, kept.status, headers, kept.media_type or None)


def keep_response(db: Session, request: Request, body: BaseModel) -> None:
    """Keeps what a handler with a transaction of its own is about to respond, with status 200."""
    keyed = state_of(request.scope).keyed
    if keyed and keyed.token:
        content = body.model_dump_json(exclude_none=True).encode()
        idempotency.keep(db, keyed, 200, "application/json", content)
