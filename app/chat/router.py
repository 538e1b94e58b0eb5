"""Serves /v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from app.auth import Caller
from app.chat import service as chats
from app.chat.completion import LAST, Chunks, Frame, whole_completion
from app.chat.models import StoredChat
from app.chat.schemas import (
    ChatCompletion,
    ChatCompletionDeleted,
    ChatCompletionList,
    ChatCreate,
    ChatUpdate,
    StoredMessageList,
    refusals_of_chat,
)
from app.db import unit_of_work
from app.errors import ApiError
from app.http.metadata_filter import metadata_filter
from app.http.openapi import event_stream
from app.http.transaction import CurrentCaller, Db, KeptRoute
from app.inference.asking import ask, model_name, refusals_of_model, told_of_faults
from app.inference.events import data_event
from app.inference.reply import Gathered, Reply, whole
from app.inference.streams import EventStream, while_connected
from app.models import service as models
from app.pagination import MAX_CURSOR, Cursor, Limit
from app.settings import get_settings
from app.tenants import retention

router = APIRouter(prefix="/v1/chat/completions", tags=["inference"], route_class=KeptRoute)

COMPLETION = "/{completion_id}"


@router.post("", response_model=ChatCompletion, responses=event_stream("chunk of the completion, or [DONE]"))
async def create_chat_completion(request: Request, asked: ChatCreate, caller: CurrentCaller) -> Response:
    """Ask a model for the next message of a conversation, whole or as a stream."""
    refusals = await run_in_threadpool(refusals_of_chat, vars(asked))  # a large schema takes a second
    model = await model_name(caller, asked.model, refusals)
    frame = Frame.of(model)
    if not asked.stream:
        completion = await while_connected(request.receive, _carry_out(request, asked, caller, frame))
        return JSONResponse(completion)
    reply = await while_connected(request.receive, _ask(request, asked, caller, model))
    events = told_of_faults(_chunks(asked, caller, frame, reply), lambda fault: data_event(fault.body()))
    return EventStream(events, reply.close)


def further_refusals(body: dict[str, Any], caller: Caller) -> list[ApiError]:
    """Returns what else is wrong with a body whose form is wrong."""
    return [*refusals_of_chat(body), *refusals_of_model(caller, body.get("model"))]


async def _ask(request: Request, asked: ChatCreate, caller: Caller, model: str) -> Reply:
    return await ask(request, caller, model, "chat/completions", asked.asked())


async def _carry_out(request: Request, asked: ChatCreate, caller: Caller, frame: Frame) -> dict[str, Any]:
    reply = await _ask(request, asked, caller, frame.model)
    choices = await whole(reply)
    completion = whole_completion(frame, choices, reply.usage, has_logprobs=bool(asked.logprobs))
    return await _stored(asked, caller, completion)


async def _chunks(asked: ChatCreate, caller: Caller, frame: Frame, reply: Reply) -> AsyncIterator[bytes]:
    include_usage = bool(asked.stream_options and asked.stream_options.include_usage)
    chunks, gathered = Chunks(frame, include_usage=include_usage), Gathered()
    async for some in chunks.of(reply, gathered):
        yield some
    if asked.store:
        choices, has_logprobs = gathered.choices(), bool(asked.logprobs)
        completion = whole_completion(frame, choices, reply.usage, has_logprobs=has_logprobs)
        await _stored(asked, caller, completion)
    if include_usage:
        yield chunks.usage(reply.usage)
    yield LAST


async def _stored(asked: ChatCreate, caller: Caller, completion: dict[str, Any]) -> dict[str, Any]:
    """Keeps a completion if that was asked for. Returns what is told of it."""
    if not asked.store:
        return completion

    def keep() -> None:
        with unit_of_work() as db:
            chats.store(
                db,
                caller.project_id,
                completion,
                asked.messages,
                metadata=asked.metadata,
                keep=retention.kept_by(db, caller.project_id, get_settings().completions_kept),
            )

    await run_in_threadpool(keep)
    return {**completion, "metadata": asked.metadata or {}}


@router.get("")
def list_chat_completions(
    request: Request,
    caller: CurrentCaller,
    db: Db,
    model: Annotated[str | None, Query(max_length=MAX_CURSOR)] = None,
    after: Cursor = None,
    limit: Limit = 20,
    order: chats.Order = "asc",
) -> ChatCompletionList:
    """Stored completions by age. `metadata[key]=value` filters, and `model`, a name or an alias."""
    found = None if model is None else models.find(db, caller.project_id, model)
    page = chats.list_stored(
        db,
        caller.project_id,
        model=model if found is None else found.name,
        metadata=metadata_filter(request),
        after=after,
        limit=limit,
        order=order,
    )
    return ChatCompletionList.of([_shown(row) for row in page.rows], page.has_more)


@router.get(COMPLETION)
def retrieve_chat_completion(completion_id: str, caller: CurrentCaller, db: Db) -> ChatCompletion:
    """A stored completion."""
    return _shown(chats.get(db, caller.project_id, completion_id))


def known(completion_id: str, caller: CurrentCaller) -> None:
    """Refuses a completion that is not there. A dependency is asked before the body is looked at."""
    with unit_of_work() as db:
        chats.get(db, caller.project_id, completion_id)


@router.post(COMPLETION, dependencies=[Depends(known)])
def update_chat_completion(
    completion_id: str, request: ChatUpdate, caller: CurrentCaller, db: Db
) -> ChatCompletion:
    """Replace the metadata of a stored completion."""
    return _shown(chats.change(db, caller.project_id, completion_id, request.metadata))


@router.delete(COMPLETION)
def delete_chat_completion(completion_id: str, caller: CurrentCaller, db: Db) -> ChatCompletionDeleted:
    """Delete a stored completion."""
    chats.remove(db, caller.project_id, completion_id)
    return ChatCompletionDeleted(id=completion_id)


@router.get(f"{COMPLETION}/messages")
def list_chat_messages(
    completion_id: str,
    caller: CurrentCaller,
    db: Db,
    after: Cursor = None,
    limit: Limit = 20,
    order: chats.Order = "asc",
) -> StoredMessageList:
    """The messages that a stored completion answers."""
    row = chats.get(db, caller.project_id, completion_id)
    return StoredMessageList.of(row, after=after, limit=limit, newest_first=order == "desc")


def _shown(row: StoredChat) -> ChatCompletion:
    return ChatCompletion(**{**row.completion, "metadata": row.meta or {}})
