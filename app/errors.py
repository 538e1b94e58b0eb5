"""Errors as OpenAI words them: one tree, one body shape. See docs/errors.md; app/http/error_handler.py sends
them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from starlette.responses import JSONResponse

log = structlog.get_logger(__name__)

DATABASE_AWAY = (OperationalError, InterfaceError, NoFreeConnection)


class ApiError(Exception):
    """What a client is told. Subclasses name the status; `code` and `param` are for programs."""

    status = 400
    type = "invalid_request_error"
    code: str | None = None
    is_final = True
    """Repeating the very same request is pointless, so the response is kept for its idempotency key."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), status_code=self.status, headers=self.headers)


class BadRequest(ApiError):
    """The request can never work as it is; also state conflicts, as the client would repeat a 409."""


class Unauthorized(ApiError):
    status = 401


class Forbidden(ApiError):
    status = 403


class NotFound(ApiError):
    """There is no such thing, or it belongs to somebody else: both look alike to the client."""

    status = 404


class MethodNotAllowed(ApiError):
    status = 405
    code = "method_not_supported"


class IdempotencyKeyReused(ApiError):
    type = "idempotency_error"
    code = "idempotency_key_reused"

    def __init__(self, key: str, why: str = "was used with another path or other parameters") -> None:
        shown = f"{key[:40]}..." if len(key) > 40 else key
        super().__init__(f"The request with the Idempotency-Key '{shown}' {why}. Use another key.")


class IdempotencyKeyInUse(ApiError):
    """The one 409: the official client repeats it, and by then the response is there."""

    status = 409
    type = "idempotency_error"
    code = "idempotency_key_in_use"

    def __init__(self, key: str) -> None:
        shown = f"{key[:40]}..." if len(key) > 40 else key
        message = f"A request with the Idempotency-Key '{shown}' is being carried out. Repeat it in a second."
        super().__init__(message, headers={"retry-after": "1"})


class RequestTimeout(ApiError):
    status = 408
    is_final = False


class TooLarge(ApiError):
    status = 413
    code = "request_too_large"


class TooManyRequests(ApiError):
    """More at once than is allowed; the official client waits and tries again."""

    status = 429
    code = "rate_limit_exceeded"
    is_final = False


class RateLimited(ApiError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    is_final = False


class TooManyJobs(ApiError):
    status = 429
    is_final = False
    code = "daily_rate_limit_exceeded"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"x-should-retry": "false"})  # repeating at once cannot help


class QuotaExceeded(ApiError):
    status = 429
    is_final = False
    type = "insufficient_quota"
    code = "insufficient_quota"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"x-should-retry": "false"})


class ServerError(ApiError):
    status = 500
    type = "server_error"


class Unavailable(ApiError):
    status = 503
    is_final = False
    type = "service_unavailable_error"


def internal_error(request_id: str) -> ServerError:
    """Returns what a client is told of a fault of ours: where to look, and nothing of what happened."""
    return ServerError(
        f"The server had an error while processing your request. Its log names this request {request_id}."
    )


def database_away(error: Exception) -> Unavailable:
    log.error("database_away", problem=str(getattr(error, "orig", error)))
    message = "The database does not answer at the moment. Try again in a few seconds."
    return Unavailable(message, headers={"retry-after": "2"})
