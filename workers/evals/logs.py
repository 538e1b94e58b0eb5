"""Finds stored completions and responses by what a run asks for, as rows with their answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from app.chat.messages import chat_messages
from app.chat.models import StoredChat
from app.models import service as models
from app.responses import service as stored_responses
from app.responses.items import OUTPUT_TEXT, messages_of
from app.responses.models import StoredResponse
from workers.evals.faults import RunInvalid

Logged = tuple[dict[str, Any], dict[str, Any]]
"""An item and what was answered to it."""
OVER = ("completed", "incomplete")


def completions(
    db: Session, project_id: str, source: Mapping[str, Any], metadata: Mapping[str, str]
) -> Iterator[tuple[int, Logged]]:
    """Yields stored completions, the oldest first, a row for each choice. Raises `RunInvalid` without any."""
    query = select(StoredChat).where(StoredChat.project_id == project_id, *_kept(StoredChat, source))
    if metadata:
        query = query.where(StoredChat.meta.contains(dict(metadata)))
    if source.get("model"):
        query = query.where(StoredChat.model == _name(db, project_id, source["model"]))
    for place, row in enumerate(_found(db, query, StoredChat, source, "stored completions")):
        item = {"id": row.id, "model": row.model, "input": chat_messages(row.messages)}
        item["metadata"] = row.meta or {}
        for choice in row.completion["choices"]:
            yield place, (item, _given(row.completion, choice))


def responses(
    db: Session, project_id: str, source: Mapping[str, Any], metadata: Mapping[str, str]
) -> Iterator[tuple[int, Logged]]:
    """Yields stored responses that are over, the oldest first. Raises `RunInvalid` without any."""
    told = StoredResponse.response
    query = select(StoredResponse).where(
        StoredResponse.project_id == project_id,
        StoredResponse.status.in_(OVER),
        *_kept(StoredResponse, source),
        *_asked(told, source),
    )
    if metadata:
        query = query.where(told["metadata"].contains(dict(metadata)))
    if source.get("model"):
        query = query.where(told["model"].as_string() == _name(db, project_id, source["model"]))
    for place, row in enumerate(_found(db, query, StoredResponse, source, "stored responses")):
        asked = messages_of(stored_responses.items_of(db, row), row.response.get("instructions"))
        item = {"id": row.id, "model": row.response["model"], "input": asked}
        item["metadata"] = row.response.get("metadata") or {}
        yield place, (item, _given_by_response(row.response))


def _kept(table: Any, source: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    found = [table.expires_at > func.now()]
    if source.get("created_after") is not None:
        found.append(table.created_at >= _moment(source["created_after"]))
    if source.get("created_before") is not None:
        # a time is told in whole seconds, so all of that second counts
        found.append(table.created_at < _moment(source["created_before"] + 1))
    return found


def _asked(told: Any, source: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    """Returns the conditions on what the requests of responses have said."""
    found: list[ColumnElement[bool]] = []
    for name in ("temperature", "top_p"):
        if source.get(name) is not None:
            found.append(told[name].as_float() == source[name])
    if source.get("instructions_search"):
        found.append(
            told["instructions"].as_string().icontains(source["instructions_search"], autoescape=True)
        )
    if source.get("reasoning_effort") is not None:
        found.append(told["reasoning"]["effort"].as_string() == source["reasoning_effort"])
    if source.get("users"):
        found.append(told["user"].as_string().in_(source["users"]))
    for tool in source.get("tools") or ():
        found.append(told["tools"].contains([{"name": tool}]))
    return found


def _found(
    db: Session, query: Select[Any], table: Any, source: Mapping[str, Any], what: str
) -> Iterator[Any]:
    """Yields rows. Raises `RunInvalid` if there are none."""
    ordered = query.order_by(table.created_at, table.id).limit(source.get("limit"))
    rows = db.scalars(ordered).all()
    if not rows:
        message = (
            f"There are no {what} like these: what is stored with 'store: true' is kept for a time only."
        )
        raise RunInvalid("no_data", message)
    yield from rows


def _name(db: Session, project_id: str, name: str) -> str:
    """Returns the name of the model itself that an alias stands for."""
    found = models.find(db, project_id, name)
    return name if found is None else found.name


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(min(seconds, 253_402_300_799), UTC)  # the last second that a datetime holds


def _given(completion: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice["message"]
    return {
        "model": completion["model"],
        "choices": [choice],
        "output_text": message.get("content") or "",
        "finish_reason": choice["finish_reason"],
        "usage": completion["usage"],
    }


def _given_by_response(response: Mapping[str, Any]) -> dict[str, Any]:
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    text = "".join(part["text"] for part in parts if part["type"] == OUTPUT_TEXT)
    usage = response.get("usage") or {}
    return {
        "model": response["model"],
        "output_text": text,
        "finish_reason": "length" if response.get("incomplete_details") else "stop",
        "usage": {
            "prompt_tokens": usage.get("input_tokens", 0),
            "completion_tokens": usage.get("output_tokens", 0),
            "total_tokens": usage.get("total_tokens", 0),
        },
    }
