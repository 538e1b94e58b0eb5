"""A response as it is told: whole, or as the sequence of events that it comes about in."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from app.errors import ApiError
from app.ids import random_id
from app.inference.events import named_event
from app.inference.reply import Piece, Reply, Usage
from app.responses import output as outputs
from app.responses.output import WHOLE, Event, Output
from app.responses.schemas import ResponseCreate, tools_told

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
        "reasoning": {"effort": asked.reasoning.effort if asked.reasoning else None, "summary": None},
        "safety_identifier": asked.safety_identifier,
        "service_tier": "default",
        "store": asked.is_stored,
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "text": {
            "format": (text and text.format) or {"type": "text"},
            **({"verbosity": text.verbosity} if text and text.verbosity else {}),
        },
        "tool_choice": asked.tool_choice or "auto",
        "tools": tools_told(asked.tools or ()),
        "top_logprobs": asked.top_logprobs or 0,
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "truncation": asked.truncation or "disabled",
    }
    return response | ({"user": asked.user} if asked.user is not None else {})


def finished(response: Mapping[str, Any], output: Output, usage: Usage) -> dict[str, Any]:
    """Returns a response with what the model wrote."""
    is_whole = output.finish_reason in WHOLE
    reason = "content_filter" if output.finish_reason == "content_filter" else "max_output_tokens"
    status = "completed" if is_whole else "incomplete"
    return {
        **response,
        "status": status,
        "completed_at": int(time.time()) if is_whole else None,
        "incomplete_details": None if is_whole else {"reason": reason},
        "output": output.items(status),
        "usage": _usage_told(usage),
    }


def failed(response: Mapping[str, Any], fault: ApiError) -> dict[str, Any]:
    """Returns a response that came to nothing."""
    error = {"code": ERROR_CODES.get(fault.status, "server_error"), "message": fault.message}
    return {**response, "status": "failed", "error": error}


class Events:
    """Writes the events of one response, each with its number."""

    def __init__(self, response: Mapping[str, Any]) -> None:
        self.output = Output()
        self._response = {**response, "status": "in_progress", "output": []}
        self._response.pop("usage", None)
        self._next = 0

    async def of(self, reply: Reply) -> AsyncIterator[bytes]:
        """Yields the events until the model has ended."""
        yield b"".join(self.opening())
        async for pieces in reply.pieces():
            if told := b"".join(self.growth(pieces)):
                yield told

    def opening(self) -> Iterator[bytes]:
        """Yields what comes before the first item."""
        yield self._event("response.created", response=self._response)
        yield self._event("response.in_progress", response=self._response)

    def growth(self, pieces: Sequence[Piece]) -> Iterator[bytes]:
        """Yields the events of the next pieces."""
        yield from self._written(self.output.add(pieces))

    def end(self) -> Iterator[bytes]:
        """Yields what the end of the reply itself tells."""
        yield from self._written(self.output.end())

    def replay(self, response: Mapping[str, Any]) -> Iterator[bytes]:
        """Yields the events of the items of a response that is over."""
        yield from self._written(outputs.replayed(response["output"]))

    def closing(self, response: Mapping[str, Any]) -> Iterator[bytes]:
        """Yields what comes after the text of a response that is over, or of one that failed."""
        if items := response["output"]:
            yield from self._written(outputs.closed(len(items) - 1, items[-1]))
        yield self._event(f"response.{response['status']}", response=response)

    def fault(self, fault: ApiError) -> bytes:
        """Returns the event of an error."""
        code = fault.code or ERROR_CODES.get(fault.status, "server_error")
        return self._event("error", code=code, message=fault.message, param=fault.param)

    def _written(self, events: Iterable[Event]) -> Iterator[bytes]:
        for event in events:
            yield self._event(event.type, **event.members)

    def _event(self, kind: str, **members: Any) -> bytes:
        number, self._next = self._next, self._next + 1
        return named_event({"type": kind, "sequence_number": number, **members})


def replayed(response: Mapping[str, Any], behind: int) -> Iterator[bytes]:
    """Yields the events of a response that is over, from the one behind that number on."""
    events = Events(response)
    written = [*events.opening(), *events.replay(response), *events.closing(response)]
    yield from written[behind + 1 :]


def _usage_told(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total,
    }
