"""Says in /openapi.json of every operation which key it needs and which errors it may give.

FastAPI describes the good responses, from the types of the handlers. Errors are the same everywhere and come
from the edge, the handlers and the error handler, so they are written down here, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field

API = "/v1/"
REF = "#/components/schemas/ErrorResponse"
ERRORS = {
    "400": "The request cannot work as it is; or the object's state does not allow it.",
    "401": "No key, or a wrong or revoked one.",
    "403": "The key may not do this.",
    "404": "No such object in the key's project.",
    "408": "The body did not arrive in time.",
    "409": "The first request with this Idempotency-Key still runs.",
    "413": "The body or the file is too large.",
    "429": "Too many requests or unfinished jobs.",
    "500": "A fault of the server; the message names the request.",
    "503": "The database is away.",
    "507": "A disk of the service is full; x-should-retry is false.",
}
WITH_BODY = {"408", "409", "413"}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Repeated with it within a day, the request is carried out once and answered alike.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}


def binary(media_type: str) -> dict[int | str, dict[str, Any]]:
    """Returns a route's `responses` where a good one is bytes of that type."""
    return {200: {"content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}}


def ranged(media_type: str) -> dict[int | str, dict[str, Any]]:
    """Returns a route's `responses` where a good one is bytes of that type, whole or a range of them."""
    error = {"application/json": {"schema": {"$ref": REF}}}
    part = binary(media_type)[200] | {"description": "The range that was asked for."}
    behind = {"description": "The range that was asked for lies behind the end.", "content": error}
    return {**binary(media_type), 206: part, 416: behind}


def event_stream(data: str) -> dict[int | str, dict[str, Any]]:
    """Returns a route's `responses` where a good one may be server-sent events, with what each holds."""
    event = {
        "type": "object",
        "description": f"One server-sent event; `data` holds the JSON of a {data}.",
        "properties": {name: {"type": "string"} for name in ("event", "data")},
        "required": ["data"],
    }
    return {200: {"content": {"text/event-stream": {"schema": event}}}}


class OneError(BaseModel):
    """One of several faults."""

    message: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """`code` and `param` are for programs, the message is for people (docs/errors.md)."""

    message: str
    type: str
    param: str | None = Field(description="Path of the field in the request that is at fault.")
    code: str | None
    errors: list[OneError] | None = Field(
        default=None,
        description="Cherry: all faults of the request, the first too; left out where there is one.",
        json_schema_extra={"x-cherry": True},
    )


class ErrorResponse(BaseModel):
    """Every failure."""

    error: ErrorBody


def install_openapi(app: FastAPI) -> None:
    """Has `app.openapi()` give the whole document, made once."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # as FastAPI's manual has it


def _document(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = found.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    definition = ErrorResponse.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= definition.pop("$defs")
    schemas["ErrorResponse"] = definition
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, method, operation in _operations(found):
        _complete(path, method, operation)
    return found


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    """Adds key and errors. FastAPI's 422 never leaves this service: what is malformed is a 400."""
    responses = operation["responses"]
    responses.pop("422", None)
    if not path.startswith(API):
        return
    operation["security"] = [{"key": []}]
    if method == "post":
        operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY)
    for status, meaning in ERRORS.items():
        if status not in responses and (method == "post" or status not in WITH_BODY):
            content = {"application/json": {"schema": {"$ref": REF}}}
            responses[status] = {"description": meaning, "content": content}
