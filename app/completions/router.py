"""Serves /v1/completions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from app.auth import Caller
from app.chat.completion import LAST, Frame
from app.completions.completion import best, chunks, told_choices, whole_completion
from app.completions.schemas import CompletionCreate, TextCompletion, refusals_of_completion
from app.errors import ApiError
from app.http.openapi import event_stream
from app.http.transaction import CurrentCaller, KeptRoute
from app.inference.asking import ask, model_name, refusals_of_model, told_of_faults
from app.inference.events import data_event
from app.inference.reply import Reply, whole
from app.inference.streams import EventStream, while_connected

router = APIRouter(prefix="/v1/completions", tags=["inference"], route_class=KeptRoute)


@router.post("", response_model=TextCompletion, responses=event_stream("chunk of the completion, or [DONE]"))
async def create_completion(request: Request, asked: CompletionCreate, caller: CurrentCaller) -> Response:
    """Ask a model to go on from a text, whole or as a stream."""
    model = await model_name(caller, asked.model, refusals_of_completion(vars(asked)))
    frame = Frame.of(model, "cmpl-")
    if not asked.stream:
        return JSONResponse(await while_connected(request.receive, _carry_out(request, asked, caller, frame)))
    reply = await while_connected(request.receive, _ask(request, asked, caller, model))
    return EventStream(
        told_of_faults(_chunks(asked, frame, reply), lambda fault: data_event(fault.body())), reply.close
    )


def further_refusals(body: dict[str, Any], caller: Caller) -> list[ApiError]:
    """Returns what else is wrong with a body whose form is wrong."""
    return [*refusals_of_completion(body), *refusals_of_model(caller, body.get("model"))]


async def _ask(request: Request, asked: CompletionCreate, caller: Caller, model: str) -> Reply:
    return await ask(request, caller, model, "completions", asked.asked())


async def _carry_out(
    request: Request, asked: CompletionCreate, caller: Caller, frame: Frame
) -> dict[str, Any]:
    reply = await _ask(request, asked, caller, frame.model)
    n = asked.n or 1
    has_logprobs = asked.logprobs is not None or asked.drawn > n
    choices = told_choices(await whole(reply), has_logprobs=has_logprobs)
    if asked.drawn > n:
        choices = best(choices, asked.prompts, of=asked.drawn, n=n, echo=bool(asked.echo))
        if asked.logprobs is None:
            choices = [{**choice, "logprobs": None} for choice in choices]
    return whole_completion(frame, choices, reply.usage)


async def _chunks(asked: CompletionCreate, frame: Frame, reply: Reply) -> AsyncIterator[bytes]:
    include_usage = bool(asked.stream_options and asked.stream_options.include_usage)
    async for some in chunks(frame, reply, include_usage=include_usage):
        yield some
    yield LAST
