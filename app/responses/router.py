"""Serves /v1/responses."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from app.auth import Caller
from app.db import on_lookup_thread, unit_of_work
from app.errors import ApiError, BadRequest, Refusals
from app.http.openapi import event_stream
from app.http.transaction import CurrentCaller, Db, KeptRoute
from app.inference.asking import ask, count_tokens, model_name, refusals_of_model, told_of_faults
from app.inference.parameters import given
from app.inference.reply import Reply
from app.inference.streams import EventStream, while_connected
from app.pagination import Cursor, Limit, page_of
from app.responses import service as responses
from app.responses.background import LEASE, Background, Progress
from app.responses.items import Item, check_calls, messages_of
from app.responses.models import ACTIVE
from app.responses.response import Events, failed, finished, new_response, replayed
from app.responses.schemas import (
    ContextCreate,
    InputTokens,
    ItemList,
    ResponseCreate,
    ResponseDeleted,
    ResponseOut,
    TokenCount,
    refusals_of_response,
    renamed,
)
from app.settings import get_settings
from app.tenants import retention

router = APIRouter(prefix="/v1/responses", tags=["inference"], route_class=KeptRoute)

RESPONSE = "/{response_id}"
NO_MESSAGE = "Invalid value for 'input': no item of it is a message, so the model has nothing to read."
STREAM = event_stream("step of the response")
Number = Annotated[int | None, Query(ge=-1, description="Sequence number of the last event seen.")]
Included = Annotated[list[str] | None, Query(alias="include[]", max_length=16)]


class Turn(NamedTuple):
    """A request that is right, and what it goes on."""

    asked: ResponseCreate
    caller: Caller
    response: dict[str, Any]
    items: list[Item]
    """What the request brings."""
    before: list[Item]

    def body(self) -> dict[str, Any]:
        """Returns what the model's server is asked, but for the model."""
        asked = self.asked
        return asked.read(self.before) | given(
            max_completion_tokens=asked.max_output_tokens,
            temperature=asked.temperature,
            top_p=asked.top_p,
            logprobs=asked.wants_logprobs or None,
            top_logprobs=(asked.top_logprobs or 0) if asked.wants_logprobs else None,
            response_format=asked.response_format(),
            parallel_tool_calls=asked.parallel_tool_calls if asked.tools else None,
        )


@router.post("", response_model=ResponseOut, responses=STREAM)
async def create_response(request: Request, asked: ResponseCreate, caller: CurrentCaller) -> Response:
    """Ask a model for a reply, whole, as a stream of events, or in the background."""
    model, before = await _looked_up(caller, asked)
    turn = Turn(asked, caller, new_response(asked, model), asked.items(), before)
    if asked.background:
        return await _in_background(request, turn)
    if not asked.stream:
        return JSONResponse(await while_connected(request.receive, _carry_out(request, turn)))
    reply = await while_connected(request.receive, _ask(request, turn))
    events = Events(turn.response)
    return EventStream(told_of_faults(_stream(turn, reply, events), events.fault), reply.close)


def further_refusals(body: dict[str, Any], caller: Caller) -> list[ApiError]:
    """Returns what else is wrong with a body whose form is wrong."""
    return [*refusals_of_response(body), *refusals_of_model(caller, body.get("model"))]


@router.post("/input_tokens")
async def count_input_tokens(request: Request, asked: TokenCount, caller: CurrentCaller) -> InputTokens:
    """Count the tokens that a request would have the model read."""
    model, before = await _looked_up(caller, asked)
    try:
        counting = count_tokens(request, caller, model, asked.read(before))
        counted = await while_connected(request.receive, counting)
    except ApiError as fault:
        raise renamed(fault) from None
    return InputTokens(input_tokens=counted)


@router.get(RESPONSE, response_model=ResponseOut, responses=STREAM)
def retrieve_response(
    request: Request,
    response_id: str,
    caller: CurrentCaller,
    db: Db,
    stream: bool = False,
    starting_after: Number = None,
    include: Included = None,  # noqa: ARG001  # what is asked for here is always told
    include_obfuscation: bool = False,  # noqa: ARG001  # never added
) -> Response:
    """A response that is kept. With `stream`, the events that it comes about in, or came."""
    row = responses.get(db, caller.project_id, response_id)
    told = responses.told(row)
    if not stream:
        return JSONResponse(told)
    behind = -1 if starting_after is None else starting_after
    if row.status not in ACTIVE:
        return EventStream(_replay(told, behind), lambda: None)
    background: Background = request.app.state.background
    progress = background.progress(response_id)
    if progress is None:
        message = "This response is not over yet. Retrieve it without 'stream' until it is."
        raise BadRequest(message, param="stream", code="invalid_value")
    return EventStream(progress.follow(behind), lambda: None)


@router.delete(RESPONSE)
def delete_response(response_id: str, caller: CurrentCaller, db: Db) -> ResponseDeleted:
    """Delete a response. Those that go on from it cannot be gone on from any more."""
    responses.remove(db, caller.project_id, response_id)
    return ResponseDeleted(id=response_id)


@router.post(f"{RESPONSE}/cancel", response_model=ResponseOut)
async def cancel_response(response_id: str, caller: CurrentCaller, request: Request) -> Response:
    """Stop a response in the background. One that is over stays as it is."""

    def cancel() -> dict[str, Any]:
        with unit_of_work() as db:
            return responses.told(responses.cancel(db, caller.project_id, response_id))

    told = await run_in_threadpool(cancel)
    background: Background = request.app.state.background
    background.cancel(response_id)
    return JSONResponse(told)


@router.get(f"{RESPONSE}/input_items")
def list_input_items(
    response_id: str,
    caller: CurrentCaller,
    db: Db,
    after: Cursor = None,
    limit: Limit = 20,
    order: Literal["asc", "desc"] = "desc",
    include: Included = None,  # noqa: ARG001
) -> ItemList:
    """The items that a response was given, those of the responses before it too."""
    items = responses.items_of(db, responses.get(db, caller.project_id, response_id))
    page = page_of(items if order == "asc" else items[::-1], after, limit)
    first, last = (page.rows[0]["id"], page.rows[-1]["id"]) if page.rows else ("", "")
    return ItemList(data=page.rows, first_id=first, last_id=last, has_more=page.has_more)


async def _looked_up(caller: Caller, asked: ContextCreate) -> tuple[str, list[Item]]:
    """Returns the name of the model, and what a request goes on. Raises all that is wrong together."""

    def context() -> list[Item]:
        with unit_of_work() as db:
            return responses.context(db, caller.project_id, asked.previous_response_id)

    refusals, before = Refusals(), list[Item]()
    refusals.all += await run_in_threadpool(
        refusals_of_response, vars(asked)
    )  # a large schema takes a second
    if asked.previous_response_id is not None:
        with refusals:
            before = await on_lookup_thread(context)
    if not refusals.all:
        with refusals:
            check_calls([*before, *asked.items()])
    if not refusals.all and not messages_of([*before, *asked.items()], asked.instructions):
        refusals.all.append(BadRequest(NO_MESSAGE, param="input", code="invalid_value"))
    return await model_name(caller, asked.model, refusals.all), before


async def _ask(request: Request, turn: Turn) -> Reply:
    """Raises an `ApiError` in the words of this endpoint."""
    try:
        return await ask(request, turn.caller, turn.response["model"], "chat/completions", turn.body())
    except ApiError as fault:
        raise renamed(fault) from None


async def _carry_out(request: Request, turn: Turn) -> dict[str, Any]:
    response = await _reply(request, turn)
    await _keep(turn, response)
    return response


async def _reply(request: Request, turn: Turn, progress: Progress | None = None) -> dict[str, Any]:
    """Returns the response with what the model wrote."""
    reply, progress = await _ask(request, turn), progress or Progress(turn.response)
    async for pieces in reply.pieces():
        progress.add(pieces)
    progress.end_reply()
    return finished(turn.response, progress.output, reply.usage)


async def _in_background(request: Request, turn: Turn) -> Response:
    await _keep(turn, turn.response)
    background: Background = request.app.state.background
    progress = background.start(turn.response, partial(_reply, request, turn))
    if turn.asked.stream:
        return EventStream(progress.follow(), lambda: None)
    return JSONResponse(turn.response)


async def _stream(turn: Turn, reply: Reply, events: Events) -> AsyncIterator[bytes]:
    faults: list[ApiError] = []

    def told(fault: ApiError) -> bytes:
        faults.append(fault)
        return events.fault(fault)

    async for event in told_of_faults(events.of(reply), told):
        yield event
    if faults:
        response = failed(turn.response, faults[0])
    else:
        if told_of_end := b"".join(events.end()):
            yield told_of_end
        response = finished(turn.response, events.output, reply.usage)
    await _keep(turn, response)
    yield b"".join(events.closing(response))


async def _replay(response: dict[str, Any], behind: int) -> AsyncGenerator[bytes]:
    yield b"".join(replayed(response, behind))


async def _keep(turn: Turn, response: dict[str, Any]) -> None:
    if not turn.asked.is_stored:
        return

    def keep() -> None:
        with unit_of_work() as db:
            responses.store(
                db,
                turn.caller.project_id,
                response,
                turn.items,
                keep=retention.kept_by(db, turn.caller.project_id, get_settings().completions_kept),
                lease=LEASE if response["status"] in ACTIVE else None,
            )

    await run_in_threadpool(keep)
