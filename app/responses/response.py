"""A response as it is told: whole, or as the sequence of events that it comes about in."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from app.errors import ApiError
from app.ids import random_id
from app.inference.events import named_event
from app.inference.reply import Gathered, Piece, Reply, Usage
from app.responses.items import Item, output_message, output_text
from app.responses.schemas import ResponseCreate

ERROR_CODES = {429: "rate_limit_exceeded", 400: "invalid_prompt"}
"""What the error of a response is called, by the status that a request would have got."""


def new_response(asked: ResponseCreate, model: str) -> dict[str, Any]:
    """Returns a response that has just begun."""
    text = asked.text
    response: dict[str, Any] = {
        "id": random_id("resp_", 32),
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "queued" if asked.background else "in_progress",
        "background": bool(asked.background),
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": asked.max_tool_calls,
        "metadata": asked.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "prompt_cache_key": asked.prompt_cache_key,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": asked.safety_identifier,
        "service_tier": "default",
        "store": asked.is_stored,
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "text": {
            "format": (text and text.format) or {"type": "text"},
            **({"verbosity": text.verbosity} if text and text.verbosity else {}),
        },
        "tool_choice": asked.tool_choice or "auto",
        "tools": [],
        "top_logprobs": asked.top_logprobs or 0,
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "truncation": asked.truncation or "disabled",
    }
    return response | ({"user": asked.user} if asked.user is not None else {})


def finished(response: Mapping[str, Any], item_id: str, gathered: Gathered, usage: Usage) -> dict[str, Any]:
    """Returns a response with what the model wrote."""
    choice = gathered.choices()[0]
    is_whole = choice.finish_reason == "stop"
    reason = "content_filter" if choice.finish_reason == "content_filter" else "max_output_tokens"
    part = output_text(choice.text, [_token(token) for some in choice.logprobs for token in some])
    status = "completed" if is_whole else "incomplete"
    return {
        **response,
        "status": status,
        "completed_at": int(time.time()) if is_whole else None,
        "incomplete_details": None if is_whole else {"reason": reason},
        "output": [output_message(item_id, status, [part])],
        "usage": _usage_told(usage),
    }


def failed(response: Mapping[str, Any], fault: ApiError) -> dict[str, Any]:
    """Returns a response that came to nothing."""
    error = {"code": ERROR_CODES.get(fault.status, "server_error"), "message": fault.message}
    return {**response, "status": "failed", "error": error}


class Events:
    """Writes the events of one response, each with its number."""

    def __init__(self, response: Mapping[str, Any], item_id: str) -> None:
        self._response = {**response, "status": "in_progress", "output": []}
        self._response.pop("usage", None)
        self._place = {"item_id": item_id, "output_index": 0, "content_index": 0}
        self._item_id = item_id
        self._next = 0

    async def of(self, reply: Reply, gathered: Gathered) -> AsyncIterator[bytes]:
        """Yields the events until the text has ended."""
        yield b"".join(self.opening())
        async for pieces in reply.pieces():
            gathered.add(pieces)
            if told := b"".join(self.deltas(pieces)):
                yield told

    def opening(self) -> Iterator[bytes]:
        """Yields what comes before the text."""
        yield self._event("response.created", response=self._response)
        yield self._event("response.in_progress", response=self._response)
        item = output_message(self._item_id, "in_progress", [])
        yield self._event("response.output_item.added", output_index=0, item=item)
        yield self._event("response.content_part.added", **self._place, part=output_text(""))

    def delta(self, text: str, logprobs: Sequence[Mapping[str, Any]] = ()) -> bytes:
        """Returns the event of a piece of text."""
        return self._event("response.output_text.delta", **self._place, delta=text, logprobs=list(logprobs))

    def closing(self, response: Mapping[str, Any]) -> Iterator[bytes]:
        """Yields what comes after the text of a response that is over, or of one that failed."""
        if not response["output"]:
            yield self._last(response)
            return
        (item,) = response["output"]
        (part,) = item["content"]
        told = [_short(token) for token in part["logprobs"]]
        yield self._event("response.output_text.done", **self._place, text=part["text"], logprobs=told)
        yield self._event("response.content_part.done", **self._place, part=part)
        yield self._event("response.output_item.done", output_index=0, item=item)
        yield self._last(response)

    def _last(self, response: Mapping[str, Any]) -> bytes:
        return self._event(f"response.{response['status']}", response=response)

    def fault(self, fault: ApiError) -> bytes:
        """Returns the event of an error."""
        code = fault.code or ERROR_CODES.get(fault.status, "server_error")
        return self._event("error", code=code, message=fault.message, param=fault.param)

    def deltas(self, pieces: Sequence[Piece]) -> Iterator[bytes]:
        """Yields the events of the next pieces of text."""
        for piece in pieces:
            if piece.text or piece.logprobs:
                yield self.delta(piece.text, [_short(_token(token)) for token in piece.logprobs or ()])

    def _event(self, kind: str, **members: Any) -> bytes:
        number, self._next = self._next, self._next + 1
        return named_event({"type": kind, "sequence_number": number, **members})


def replayed(response: Mapping[str, Any], behind: int) -> Iterator[bytes]:
    """Yields the events of a response that is over, from the one behind that number on."""
    item_id = response["output"][0]["id"] if response["output"] else ""
    events = Events(response, item_id)
    written: list[bytes] = list(events.opening())
    if response["output"]:
        part = response["output"][0]["content"][0]
        written.append(events.delta(part["text"], [_short(token) for token in part["logprobs"]]))
    written += events.closing(response)
    yield from written[behind + 1 :]


def _usage_told(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total,
    }


def _token(token: Mapping[str, Any]) -> Item:
    """Returns a token with its log probability, as items hold it: its bytes are never null."""
    return {**_alternative(token), "top_logprobs": [_alternative(one) for one in token["top_logprobs"]]}


def _alternative(token: Mapping[str, Any]) -> Item:
    return {"token": token["token"], "logprob": token["logprob"], "bytes": token.get("bytes") or []}


def _short(token: Mapping[str, Any]) -> Item:
    """Returns a token as events of text hold it: without bytes."""
    others = [{"token": one["token"], "logprob": one["logprob"]} for one in token["top_logprobs"]]
    return {"token": token["token"], "logprob": token["logprob"], "top_logprobs": others}
