"""Routes whose answer is known before their transaction commits, so that it can be kept within it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.db import commit, unit_of_work
from app.idempotency import service
from app.idempotency.service import Attempt


class KeptRoute(APIRoute):
    """The class of every route below /v1: `APIRouter(route_class=KeptRoute)`.

    A handler's transaction (its argument `db`) is committed on the thread that ran the handler. Where the
    request's answer is to be kept in it, `get_db` commits after this handler has returned, and finds the
    answer in the request's state.
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
                request.scope["state"]["answer"] = response
            return response

        return handle_and_show


def _committing(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(endpoint)
    def handle(*args: Any, db: Session, **values: Any) -> Any:
        answer = endpoint(*args, db=db, **values)
        if not db.info["keeps_answer"]:
            commit(db)
        return answer

    return handle


async def begin(request: Request, parameters: Any) -> Response | None:
    """For handlers that read a form themselves: claim the request's key, if it carries one, once its
    parameters are known. What comes back is the answer of an earlier request."""
    attempt = request.scope["state"].get("idempotency")
    if attempt is None:
        return None
    scope = request.scope
    print_of_it = service.fingerprint(scope["method"], scope["path"], scope["query_string"], parameters)
    return await run_in_threadpool(claim, attempt, print_of_it)


def claim(attempt: Attempt, fingerprint: bytes) -> Response | None:
    with unit_of_work() as db:
        kept = service.begin(db, attempt, fingerprint)
    if kept is None:
        return None
    headers = {"idempotent-replayed": "true", "original-request": kept.request_id}
    return Response(kept.body, kept.status, headers, kept.media_type or None)


def keep(db: Session, request: Request, answer: BaseModel) -> None:
    """For handlers with a transaction of their own: keep what they will answer, with status 200."""
    attempt = request.scope["state"].get("idempotency")
    if attempt and attempt.token:
        body = answer.model_dump_json(exclude_none=True).encode()
        service.keep(db, attempt, 200, "application/json", body)
