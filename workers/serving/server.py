"""The sampler's HTTP side: POST /projects/{project}/v1/chat/completions, for this service's own processes.

Who calls holds the operator's token and may name any project; whoever calls on behalf of a user must have
checked whose it is.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable

import structlog
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.errors import (
    DATABASE_AWAY,
    ApiError,
    BadRequest,
    NotFound,
    ServerError,
    TooLarge,
    Unauthorized,
    database_away,
)
from app.settings import Settings
from app.validation_errors import describe
from graders import strict_json
from workers.serving.batcher import Batcher
from workers.serving.library import Library
from workers.serving.wire import ChatRequest, chat_completion

log = structlog.get_logger(__name__)

MAX_BODY = 8 * 2**20
"""The largest body of a request, in bytes. Chosen, not measured."""
Handler = Callable[[Request], Awaitable[Response]]


def create_sampler(settings: Settings) -> Starlette:
    """Returns the sampler's application. Without a token it serves nobody."""
    token = settings.sampler_token.get_secret_value()
    library = Library(settings)
    batcher = Batcher(library)

    async def chat(request: Request) -> Response:
        _check_token(request, token)
        asked = await _read(request)
        files = await run_in_threadpool(library.find, request.path_params["project"], asked.model)
        seed = secrets.randbits(63) if asked.seed is None else asked.seed
        sampled = await asyncio.wrap_future(batcher.submit(files, asked.chat(), asked.options(), seed))
        return JSONResponse(chat_completion(asked, sampled))

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def nothing(request: Request) -> Response:
        raise NotFound(f"Invalid URL ({request.method} {request.url.path})")

    routes = [
        Route("/healthz", health),
        Route("/projects/{project}/v1/chat/completions", _answering(chat), methods=["POST"]),
        Route("/{path:path}", _answering(nothing), methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
    ]
    app = Starlette(routes=routes)
    app.state.batcher, app.state.library = batcher, library
    return app


def _answering(handler: Handler) -> Handler:
    """Makes every failure leave in OpenAI's shape."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except ApiError as refusal:
            return refusal.response()
        except DATABASE_AWAY as problem:
            return database_away(problem).response()
        except Exception:
            log.exception("request_failed", path=request.url.path)
            return ServerError("The sampler failed; its log says why.").response()

    return handle


def _check_token(request: Request, token: str) -> None:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not token or not hmac.compare_digest(given.encode(), token.encode()):
        raise Unauthorized("This endpoint takes the token that this service's own processes share.")


async def _read(request: Request) -> ChatRequest:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise TooLarge(f"The request body is too large: at most {MAX_BODY} bytes are taken.")
    try:
        return ChatRequest.model_validate(strict_json.loads(body))
    except strict_json.StrictJsonError as fault:
        raise BadRequest(f"We could not parse the JSON body of your request: {fault}.") from None
    except ValidationError as error:
        found = error.errors()[0]
        told = describe({**found, "loc": ("body", *found["loc"])})
        raise BadRequest(told.message, param=told.param, code=told.code) from None
