"""A text completion as it is told: whole, the best of several, or in chunks."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from app.chat.completion import FINGERPRINT, Frame, usage_told
from app.inference.events import data_event
from app.inference.reply import Choice, Reply, Usage

LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


def whole_completion(frame: Frame, choices: Iterable[dict[str, Any]], usage: Usage) -> dict[str, Any]:
    """Returns a `text_completion`."""
    return {**_head(frame), "choices": list(choices), "usage": usage_told(usage)}


def told_choices(choices: Sequence[Choice], *, has_logprobs: bool) -> list[dict[str, Any]]:
    """Returns choices as they are told, in their order, with log probabilities where those were asked for."""
    return [
        {
            "text": choice.text,
            "index": index,
            "logprobs": _joined(choice.logprobs) if has_logprobs else None,
            "finish_reason": choice.finish_reason,
        }
        for index, choice in enumerate(choices)
    ]


def best(
    choices: Sequence[dict[str, Any]], prompts: Sequence[Any], *, of: int, n: int, echo: bool
) -> list[dict[str, Any]]:
    """Returns the `n` choices of each prompt whose tokens are likeliest on average, likeliest first."""
    chosen = []
    for number, prompt in enumerate(prompts):
        drawn = choices[number * of : (number + 1) * of]
        ranked = sorted(drawn, key=lambda choice: -_mean_logprob(choice, prompt if echo else None))
        chosen += ranked[:n]
    return [{**choice, "index": index} for index, choice in enumerate(chosen)]


async def chunks(frame: Frame, reply: Reply, *, include_usage: bool) -> AsyncIterator[bytes]:
    """Yields the chunks of a reply. The finish reason is null until a choice's last one, as at OpenAI."""
    head = _head(frame)
    more = {"usage": None} if include_usage else {}
    async for pieces in reply.pieces():
        yield b"".join(data_event({**head, "choices": [_piece_told(piece)], **more}) for piece in pieces)
    if include_usage:
        yield data_event({**head, "choices": [], "usage": usage_told(reply.usage)})


def _piece_told(piece: Any) -> dict[str, Any]:
    return {
        "text": piece.text,
        "index": piece.choice,
        "logprobs": piece.logprobs,
        "finish_reason": piece.finish_reason,
    }


def _head(frame: Frame) -> dict[str, Any]:
    return {
        "id": frame.id,
        "object": "text_completion",
        "created": frame.created,
        "model": frame.model,
        "system_fingerprint": FINGERPRINT,
    }


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Joins the log probabilities of a choice's pieces; of none, the lists are empty."""
    joined: dict[str, Any] = {
        name: [each for part in parts for each in part.get(name) or ()] for name in LISTS
    }
    return joined


def _mean_logprob(choice: Mapping[str, Any], echoed: Any) -> float:
    """Returns the mean log probability of what was sampled, without the tokens of an echoed prompt."""
    told = choice["logprobs"]
    if told is None:
        return -math.inf
    values = told["token_logprobs"]
    if isinstance(echoed, str):
        values = [value for value, at in zip(values, told["text_offset"], strict=True) if at >= len(echoed)]
    elif echoed is not None:
        values = values[len(echoed) :]
    return sum(values) / len(values) if values else -math.inf
