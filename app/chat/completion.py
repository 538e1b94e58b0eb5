"""A chat completion as it is told: whole, or in chunks."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from app.ids import random_id
from app.inference.events import DONE, data_event
from app.inference.reply import Call, CallPiece, Choice, Piece, Reply, Usage

FINGERPRINT = "cherry"
TIER = "default"
_OPENING = '{"role":"assistant","content":"","refusal":null}'


class Frame(NamedTuple):
    """What a completion and all its chunks say of themselves."""

    id: str
    created: int
    model: str

    @classmethod
    def of(cls, model: str, prefix: str = "chatcmpl-") -> Frame:
        """Makes the frame of a new completion."""
        return cls(random_id(prefix), int(time.time()), model)


def whole_completion(
    frame: Frame, choices: Sequence[Choice], usage: Usage, *, has_logprobs: bool = False
) -> dict[str, Any]:
    """Returns a `chat.completion`. `has_logprobs` says that they were asked for: no tokens have some too."""
    return {
        "id": frame.id,
        "object": "chat.completion",
        "created": frame.created,
        "model": frame.model,
        "choices": [_choice(index, choice, has_logprobs) for index, choice in enumerate(choices)],
        "usage": usage_told(usage),
        "service_tier": TIER,
        "system_fingerprint": FINGERPRINT,
    }


def usage_told(usage: Usage) -> dict[str, Any]:
    """Returns what was used, as chat and text completions tell it."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _choice(index: int, choice: Choice, has_logprobs: bool) -> dict[str, Any]:
    tokens = [token for some in choice.logprobs for token in some]
    return {
        "index": index,
        "finish_reason": choice.finish_reason,
        "logprobs": {"content": tokens, "refusal": None} if has_logprobs else None,
        "message": _message(choice),
    }


def _message(choice: Choice) -> dict[str, Any]:
    """Returns what a model wrote. Thoughts and calls are left out where there are none."""
    content = None if choice.calls and not choice.text else choice.text
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
    if choice.thoughts:
        message["reasoning_content"] = choice.thoughts
    if choice.calls:
        message["tool_calls"] = [call.chat_form for call in choice.calls]
    return message


def _call_piece(call: CallPiece) -> dict[str, Any]:
    """Returns a piece of a call: its first names it."""
    if call.id is None and call.name is None:
        return {"index": call.number, "function": {"arguments": call.arguments}}
    return {"index": call.number, **Call(call.id or "", call.name or "", call.arguments).chat_form}


class Chunks:
    """Writes the chunks of one completion. What they have in common is written once."""

    def __init__(self, frame: Frame, *, include_usage: bool) -> None:
        self._frame = frame
        head = {
            "id": frame.id,
            "object": "chat.completion.chunk",
            "created": frame.created,
            "model": frame.model,
        }
        told = {**head, "service_tier": TIER, "system_fingerprint": FINGERPRINT}
        self._head = "data: " + json.dumps(told)[:-1] + ', "choices": ['
        self._tail = ("]" + (', "usage": null' if include_usage else "") + "}\n\n").encode()
        self._told = told
        self._open: set[int] = set()

    async def of(self, reply: Reply, gathered: Any) -> AsyncIterator[bytes]:
        """Yields the chunks of a reply, those together that have come together."""
        async for pieces in reply.pieces():
            gathered.add(pieces)
            yield b"".join(self._written(pieces))

    def usage(self, usage: Usage) -> bytes:
        """Returns the chunk that tells what was used."""
        return data_event({**self._told, "choices": [], "usage": usage_told(usage)})

    def _written(self, pieces: Iterable[Piece]) -> Iterator[bytes]:
        for piece in pieces:
            if piece.choice not in self._open:
                self._open.add(piece.choice)
                yield self._chunk(piece.choice, _OPENING, None, None)
            if piece.thoughts:
                yield self._chunk(piece.choice, _delta(reasoning_content=piece.thoughts), None, None)
            if piece.text or piece.logprobs:
                content = '{"content":' + json.dumps(piece.text, ensure_ascii=False) + "}"
                yield self._chunk(piece.choice, content, piece.logprobs, None)
            for call in piece.calls:
                yield self._chunk(piece.choice, _delta(tool_calls=[_call_piece(call)]), None, None)
            if piece.finish_reason:
                yield self._chunk(piece.choice, "{}", None, piece.finish_reason)

    def _chunk(self, index: int, delta: str, logprobs: Any, finish_reason: str | None) -> bytes:
        told = (
            "null"
            if logprobs is None
            else json.dumps({"content": logprobs, "refusal": None}, ensure_ascii=False)
        )
        reason = "null" if finish_reason is None else f'"{finish_reason}"'
        choice = f'{{"index":{index},"delta":{delta},"logprobs":{told},"finish_reason":{reason}}}'
        return (self._head + choice).encode() + self._tail


def _delta(**members: Any) -> str:
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"))


LAST = data_event(DONE)
