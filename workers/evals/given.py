"""Reads the answer that a row of data brings, in any of the forms that it comes in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.evals.answers import Answer
from graders.types import Sample, TokenUsage
from methods.messages import text_of
from workers.evals.faults import AnswerFailed


def given_answer(given: Mapping[str, Any]) -> Answer:
    """Returns the answer that a row brings as its `sample`. Raises `AnswerFailed` if there is none in it."""
    choice = _first(given.get("choices"))
    message = _object(choice.get("message"))
    tools = given.get("output_tools") or message.get("tool_calls") or ()
    reason = given.get("finish_reason") or choice.get("finish_reason")
    sample = Sample(
        output_text=_text(given, message, has_tools=bool(tools)),
        finish_reason=reason if isinstance(reason, str) else "stop",
        output_tools=tuple(tools) if isinstance(tools, Sequence) else (),
        output_audio=given.get("output_audio"),
    )
    model = given.get("model")
    return Answer(sample, model if isinstance(model, str) else "", _usage(_object(given.get("usage"))))


def _text(given: Mapping[str, Any], message: Mapping[str, Any], *, has_tools: bool) -> str:
    """Returns the text of an answer: `output_text`, a chat choice, output messages, or `output_json`."""
    output = [one for one in given.get("output") or () if isinstance(one, Mapping) and "content" in one]
    if isinstance(given.get("output_text"), str):
        return str(given["output_text"])
    if message.get("content") is not None:
        return text_of(message["content"])
    if output:
        return "".join(text_of(one["content"]) for one in output)
    if "output_json" in given:
        return json.dumps(given["output_json"], ensure_ascii=False)
    if has_tools:
        return ""
    raise AnswerFailed(
        "invalid_sample",
        "The row's 'sample' holds no answer: give it an 'output_text', or 'choices' as chats have.",
    )


def _usage(told_usage: Mapping[str, Any]) -> TokenUsage:
    details = _object(told_usage.get("prompt_tokens_details"))
    cached = details.get("cached_tokens", told_usage.get("cached_tokens"))
    counts = (told_usage.get("prompt_tokens"), told_usage.get("completion_tokens"), cached)
    return TokenUsage(*(count if isinstance(count, int) and count > 0 else 0 for count in counts))


def _first(choices: Any) -> Mapping[str, Any]:
    return _object(choices[0]) if isinstance(choices, list) and choices else {}


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
