"""The one handler of errors: whatever a route raises leaves as an `ApiError`. See docs/errors.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from app.auth import Caller
from app.disk import is_full
from app.errors import (
    DATABASE_AWAY,
    ApiError,
    BadRequest,
    MethodNotAllowed,
    NoRoom,
    NotFound,
    Refusals,
    database_away,
)
from app.http.azure import asked_path
from app.http.transaction import state_of
from app.storage import STORAGE_FAULTS
from app.validation_errors import describe_all

log = structlog.get_logger(__name__)

BodyCheck = Callable[[dict[str, Any], Caller], list[ApiError]]
"""Looks at the fields of a malformed body that are there, for what its handler would refuse."""

API, PAGES = "/v1/", "/dashboard"
NOT_YET = re.compile(
    r"/v1/(responses/compact|embeddings|batches|organization|moderations"
    r"|vector_stores|assistants|threads|images|audio|conversations|containers)(/|\Z)"
)
"""Paths of OpenAI's API that this version does not serve."""


def install_error_handlers(app: FastAPI) -> None:
    """Gives every failure the one shape. The edge (app/http/edge.py) responds to what nobody foresaw."""
    for raised in (ApiError, RequestValidationError, HTTPException, *DATABASE_AWAY, *STORAGE_FAULTS):
        app.add_exception_handler(raised, _handle)


def _handle(request: Request, error: Exception) -> Response:
    told = _as_api_error(request, error)
    is_refusal = isinstance(error, RequestValidationError | HTTPException)  # before the handler has begun
    state_of(request.scope).is_final = told.is_final and not is_refusal
    page = request.app.state.error_page(request, told) if request.url.path.startswith(PAGES) else None
    return page or told.response()


def _as_api_error(request: Request, error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _malformed(request, error)
    if isinstance(error, HTTPException):
        return _from_routing(request, error)
    if isinstance(error, DATABASE_AWAY):
        return database_away(error)
    if is_full(error):
        log.error("no_room", problem=str(error))
        return NoRoom("what the request brings")
    raise error  # the edge tells of it


def _malformed(request: Request, error: RequestValidationError) -> ApiError:
    """Returns what is wrong with the request's form, and with those of its fields that can be looked at."""
    refusals = Refusals()
    refusals.all += [
        BadRequest(fault.message, param=fault.param, code=fault.code)
        for fault in describe_all(error.errors())
    ]
    told = {refusal.param for refusal in refusals.all}
    look: BodyCheck | None = request.app.state.body_checks.get(request.url.path)
    caller = state_of(request.scope).caller
    if look is not None and isinstance(caller, Caller) and isinstance(error.body, dict):
        refusals.all += [more for more in look(error.body, caller) if more.param not in told]
    return refusals.together()


def _about_base_url(request: Request) -> str:
    """Says so if the client's base URL is what is wrong: the API's paths begin with /v1, once."""
    path, base = request.url.path, f"{request.base_url}v1"
    if path.startswith(f"{API}v1/"):
        return f". The path has /v1 twice: set the client's base_url to {base}."
    if not path.startswith((API, PAGES)):
        return f". The paths of the API begin with /v1: set the client's base_url to {base}."
    return ""


def _from_routing(request: Request, error: HTTPException) -> ApiError:
    asked, method = asked_path(request.scope), request.method
    if error.status_code in (404, 405) and NOT_YET.match(request.url.path):
        return NotFound(f"{method} {asked} is not available in this version of Cherry.")
    if error.status_code == 404:
        return NotFound(f"Invalid URL ({method} {asked}){_about_base_url(request)}")
    if error.status_code == 405:
        return MethodNotAllowed(f"Not allowed to {method} on {asked}.", headers=error.headers)
    return BadRequest(str(error.detail))
