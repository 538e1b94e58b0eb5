"""Errors as OpenAI words them: one tree, one body shape. See docs/errors.md; app/http/error_handler.py sends
them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from starlette.responses import JSONResponse

from app.disk import is_full

log = structlog.get_logger(__name__)

MOST_TOLD = 20
"""Faults of one request that are told. Chosen, not measured."""
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
        self.others: tuple[ApiError, ...] = ()
        """What else is wrong with the request, as far as that was found."""

    @property
    def all(self) -> list[ApiError]:
        """Returns this and all others, each by itself."""
        return [self, *self.others]

    def body(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "message": self._whole_message(),
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        if self.others:
            told["errors"] = [
                {"message": one.message, "param": one.param, "code": one.code} for one in self.all[:MOST_TOLD]
            ]
        return {"error": told}

    def _whole_message(self) -> str:
        if not self.others:
            return self.message
        told = " ".join(other.message for other in self.others[: MOST_TOLD - 1])
        left = len(self.all) - MOST_TOLD
        return f"{self.message} Also: {told}" + (f" And {left} more." if left > 0 else "")

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), status_code=self.status, headers=self.headers)


class Refusals:
    """Gathers what is wrong with a request, so that its sender is told all of it at once.

    Used as a context manager, it takes in what a check inside refuses; `raise_any` then raises that, if there
    is something.
    """

    def __init__(self) -> None:
        self.all: list[ApiError] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: object, raised: BaseException | None, _traceback: object) -> bool:
        if not isinstance(raised, BadRequest | NotFound):
            return False
        self.all += raised.all
        return True

    def raise_any(self) -> None:
        """Raises the first refusal, which names the others too. Raises `BadRequest` or `NotFound`."""
        if self.all:
            raise self.together()

    def together(self) -> ApiError:
        """Returns the first refusal, which names the others too."""
        by_name = {(one.param, one.message): one for one in self.all}
        first, *others = by_name.values()
        first.others = tuple(others)
        return first


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


class NoRoom(ApiError):
    """A disk of the service is full. The official client would repeat a 5xx, and only send it all again."""

    status = 507
    type = "server_error"
    code = "insufficient_storage"
    is_final = False

    def __init__(self, what: str) -> None:
        message = (
            f"The service has no room left for {what}. Nothing was stored. Whoever runs the service must "
            "make room; send the request again after that."
        )
        super().__init__(message, headers={"x-should-retry": "false"})


class Unavailable(ApiError):
    status = 503
    is_final = False
    type = "service_unavailable_error"


def internal_error(request_id: str) -> ServerError:
    """Returns what a client is told of a fault of ours: where to look, and nothing of what happened."""
    return ServerError(
        f"The server had an error while processing your request. Its log names this request {request_id}."
    )


def database_away(error: Exception) -> ApiError:
    log.error("database_away", problem=str(getattr(error, "orig", error)))
    if is_full(error):
        return NoRoom("what the request brings")
    message = "The database does not answer at the moment. Try again in a few seconds."
    return Unavailable(message, headers={"retry-after": "2"})
