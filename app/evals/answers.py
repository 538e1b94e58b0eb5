"""An answer to one item: as graders see it, and as it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.evals.schemas import ApiErrorOut
from app.storable import clean
from graders.types import Sample, TokenUsage
from methods.messages import text_of

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        sample: as graders see it.
        model: who said it; empty where that is not known.
        usage: the tokens that it took.
    """

    sample: Sample
    model: str = ""
    usage: TokenUsage = field(default_factory=TokenUsage)


def told(
    asked: Messages, answer: Answer | None, sampling: Mapping[str, Any], error: ApiErrorOut | None = None
) -> dict[str, Any]:
    """Returns the `sample` of an output item. `sampling` is empty where nothing was sampled."""
    numbers = {name: sampling.get(name) for name in ("temperature", "max_completion_tokens", "top_p", "seed")}
    found: dict[str, Any] = {
        "input": [_told_message(message) for message in asked],
        **{name: value for name, value in numbers.items() if value is not None},
    }
    if error is not None:
        found["error"] = error.model_dump()
    if answer is None:
        return found
    sample, usage = answer.sample, answer.usage
    output: dict[str, Any] = {"role": "assistant", "content": clean(sample.output_text)}
    if sample.output_tools:
        output["tool_calls"] = list(sample.output_tools)
    return found | {
        "output": [output],
        "finish_reason": sample.finish_reason,
        "model": answer.model,
        "usage": {
            "total_tokens": usage.total_tokens,
            "completion_tokens": usage.completion_tokens,
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
        },
    }


def _told_message(message: Mapping[str, Any]) -> dict[str, str]:
    return {"role": str(message.get("role", "")), "content": clean(text_of(message.get("content")))}
