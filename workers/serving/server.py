"""The sampler's HTTP side, for this service's own processes: chat completions and completions of texts.

Who calls holds the operator's token and may name any project; whoever calls on behalf of a user must have
checked whose it is.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from weakref import WeakKeyDictionary

import structlog
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

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
from workers.serving.answers import Answer, Hop, Pace, error_event
from workers.serving.asked import Asked, Preparation, Prepared
from workers.serving.chunks import ChatWire, Choice, TextWire, Wire
from workers.serving.completion_text import CompletionText
from workers.serving.engine import Engine
from workers.serving.library import Library
from workers.serving.parts.parts_text import PartsText
from workers.serving.requests import Request as EngineRequest
from workers.serving.share import Share
from workers.serving.wire import ChatRequest, CountRequest, SampleRequest, TextRequest

log = structlog.get_logger(__name__)

MAX_BODY = 8 * 2**20
"""The largest body of a request, in bytes. Chosen, not measured."""
SHORT_BODY = 4096
"""The longest body that is read on the event loop. Measured: 70 microseconds for the built-in model."""
KEY_HEADER = "x-cherry-key"
"""Names whom a request is for, so that the sampler is fair to all; without it, its project is named."""
SEED_BITS = 63
"""Of a seed where none is given. It follows from OpenAI's seeds, which have 64 bits with their sign."""
FAILED = "The sampler failed; its log says why."
CLIENT_GONE = 499
"""The status of an answer that nobody reads, by a convention of nginx."""
Handler = Callable[[Request], Awaitable[Response]]
Body = TypeVar("Body", bound=BaseModel)
Sampled = TypeVar("Sampled", bound=SampleRequest)


def create_sampler(settings: Settings) -> Starlette:
    """Returns the sampler's application. Without a token it serves nobody."""
    library = Library(settings)
    engine = Engine(library, settings, Share(settings.sampler_share, settings.data_dir).pause)
    sampler = Sampler(engine, Preparation(library), settings.sampler_token.get_secret_value())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(engine.close)

    app = Starlette(routes=sampler.routes(), lifespan=lifespan)
    app.state.engine, app.state.library = engine, library
    return app


class Sampler:
    """Answers requests with what the engine samples."""

    def __init__(self, engine: Engine, preparation: Preparation, token: str) -> None:
        self._engine = engine
        self._preparation = preparation
        self._token = token
        self._pace = Pace()
        self._hops: WeakKeyDictionary[asyncio.AbstractEventLoop, Hop] = WeakKeyDictionary()

    def routes(self) -> list[Route]:
        """Returns what is served where."""
        project = "/projects/{project}/v1"
        anything = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        return [
            Route("/healthz", _health),
            Route(f"{project}/chat/completions", _answering(self._chat), methods=["POST"]),
            Route(f"{project}/completions", _answering(self._text), methods=["POST"]),
            Route(f"{project}/tokenize", _answering(self._count), methods=["POST"]),
            Route("/{path:path}", _answering(_nothing), methods=anything),
        ]

    async def _chat(self, request: Request) -> Response:
        asked = await self._read(request, ChatRequest)
        prepared = await self._prepare(request, asked, self._preparation.chat)
        wire = ChatWire(asked.model, has_logprobs=bool(asked.logprobs), has_usage=asked.has_usage)
        return await self._answer(request, asked, prepared, wire)

    async def _text(self, request: Request) -> Response:
        asked = await self._read(request, TextRequest)
        prepared = await self._prepare(request, asked, self._preparation.text)
        wire = TextWire(asked.model, has_logprobs=asked.logprobs is not None, has_usage=asked.has_usage)
        return await self._answer(request, asked, prepared, wire)

    async def _prepare(
        self, request: Request, asked: Sampled, prepare: Callable[[str, Sampled], Prepared]
    ) -> Prepared:
        """Reads a request: a short one for a known model here, as a thread of its own would cost more."""
        project = request.path_params["project"]
        is_short = int(request.headers.get("content-length", MAX_BODY)) <= SHORT_BODY
        has_format = isinstance(asked, ChatRequest) and bool(asked.response_format or asked.tools)
        if is_short and not has_format and self._preparation.is_quick(project, asked.model):
            return prepare(project, asked)
        return await run_in_threadpool(prepare, project, asked)

    async def _count(self, request: Request) -> Response:
        asked = await self._read(request, CountRequest)
        count = await run_in_threadpool(self._preparation.count, request.path_params["project"], asked)
        return JSONResponse({"count": count})

    async def _read(self, request: Request, form: type[Body]) -> Body:
        _check_token(request, self._token)
        return await _read_body(request, form)

    async def _answer(
        self, request: Request, asked: SampleRequest, prepared: Prepared, wire: Wire
    ) -> Response:
        """Samples, and returns the answer when it is there; of a stream, when it begins."""
        answer = Answer(wire)
        watch = asyncio.create_task(_close_if_gone(request, answer))
        try:
            self._submit(request, asked, prepared, answer)
            if asked.stream:
                await answer.begun()
                return Stream(answer, self._pace, watch)
            whole = await answer.whole()
        except BaseException:
            answer.close()
            watch.cancel()
            raise
        watch.cancel()
        return Response(status_code=CLIENT_GONE) if answer.is_closed else JSONResponse(whole)

    def _submit(self, request: Request, asked: SampleRequest, prepared: Prepared, answer: Answer) -> None:
        """Hands each prompt to the engine. Raises what the engine raises where it is full."""
        samples = asked.n or 1
        seed = secrets.randbits(SEED_BITS) if asked.seed is None else asked.seed
        key = request.headers.get(KEY_HEADER) or request.path_params["project"]
        hop = self._hop()
        for number, prompt in enumerate(prepared.prompts):
            choices = _choices(prepared, prompt, asked, samples * number, samples)
            part = answer.add(choices, prompt.echo, is_read=prompt.options.max_tokens == 0)
            part.ticket = self._engine.submit(
                EngineRequest(
                    model=prepared.files,
                    prompt=prompt.tokens,
                    samples=samples,
                    options=prompt.options,
                    seed=seed + number,
                    key=key,
                    on_event=hop.teller(part),
                )
            )

    def _hop(self) -> Hop:
        loop = asyncio.get_running_loop()
        if loop not in self._hops:
            self._hops[loop] = Hop(loop)
        return self._hops[loop]


class Stream(Response):
    """Is an answer that is written while it grows."""

    def __init__(self, answer: Answer, pace: Pace, watch: asyncio.Task[None]) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._answer = answer
        self._pace = pace
        self._watch = watch

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Writes it. A client that goes away ends the sampling."""
        self._pace.streams += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for told in self._told():
                await send({"type": "http.response.body", "body": told.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._pace.streams -= 1
            self._answer.close()
            self._watch.cancel()

    async def _told(self) -> AsyncIterator[str]:
        try:
            async for told in self._answer.stream(self._pace):
                yield told
        except Exception:
            log.exception("stream_failed")
            yield error_event(ServerError(FAILED))


def _choices(
    prepared: Prepared, prompt: Asked, asked: SampleRequest, first: int, samples: int
) -> list[Choice]:
    return [_choice(prepared, prompt, asked, first + i) for i in range(samples)]


def _choice(prepared: Prepared, prompt: Asked, asked: SampleRequest, index: int) -> Choice:
    end_ids = frozenset(prepared.model.end_ids)
    before = prompt.tokens if prompt.continues else ()
    if prompt.parts is None:
        text = CompletionText(prepared.texts, end_ids, asked.stops, before)
        return Choice(index, text, prepared.texts)
    parts = PartsText(
        prompt.parts.parts.reader,
        CompletionText(prepared.texts, end_ids, ()),
        prompt.tokens,
        prompt.parts.tools,
        prompt.parts.call_tag,
        asked.stops,
        prompt.parts.live(),
    )
    return Choice(index, parts, prepared.texts, parts)


async def _close_if_gone(request: Request, answer: Answer) -> None:
    """Ends an answer when its client goes away: the body has been read, so nothing else comes."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    answer.close()


async def _health(_: Request) -> Response:
    return JSONResponse({"status": "ok", "sampler": "cherry"})


async def _nothing(request: Request) -> Response:
    raise NotFound(f"Invalid URL ({request.method} {request.url.path})")


def _answering(handler: Handler) -> Handler:
    """Makes every failure leave in OpenAI's shape."""

    async def handle(request: Request) -> Response:
        structlog.contextvars.bind_contextvars(request_id=request.headers.get("x-request-id"))
        try:
            return await handler(request)
        except ApiError as refusal:
            return refusal.response()
        except ClientDisconnect:
            return Response(status_code=CLIENT_GONE)
        except DATABASE_AWAY as problem:
            return database_away(problem).response()
        except Exception:
            log.exception("request_failed", path=request.url.path)
            return ServerError(FAILED).response()

    return handle


def _check_token(request: Request, token: str) -> None:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not token or not hmac.compare_digest(given.encode(), token.encode()):
        raise Unauthorized("This endpoint takes the token that this service's own processes share.")


async def _read_body(request: Request, form: type[Body]) -> Body:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise TooLarge(f"The request body is too large: at most {MAX_BODY} bytes are taken.")
    try:
        return form.model_validate(strict_json.loads(body))
    except strict_json.StrictJsonError as fault:
        raise BadRequest(f"We could not parse the JSON body of your request: {fault}.") from None
    except ValidationError as error:
        found = error.errors()[0]
        told = describe({**found, "loc": ("body", *found["loc"])})
        raise BadRequest(told.message, param=told.param, code=told.code) from None
