"""Chat requests and completions on the wire: what the sampler honours of OpenAI's."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from app.errors import BadRequest
from app.ids import random_id
from methods.response_format import ResponseFormatInvalid, checked
from methods.train_config import LEAST_TEMPERATURE
from workers.serving.chat import SampledCompletions, SamplingOptions

DEFAULT_TOKENS = 4096
"""The longest completion where the request does not say; the model's context may end it earlier. Chosen,
not measured.
"""
MAX_SAMPLES = 128
"""The most completions of one request, as at OpenAI."""
Stop = Annotated[str, Field(min_length=1, max_length=256)]


class ChatMessage(BaseModel):
    """Is one message. Content parts are text: models here see no images and hear nothing."""

    model_config = ConfigDict(extra="allow")

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None


class ChatRequest(BaseModel):
    """Is what is asked. Parameters that would change the completion and are not here are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field(min_length=1, max_length=256)
    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    n: int | None = Field(default=None, ge=1, le=MAX_SAMPLES)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    seed: int | None = None
    logprobs: bool | None = None
    response_format: dict[str, Any] | None = None
    stream: Literal[False] | None = None
    user: Any = None
    store: Any = None
    metadata: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    service_tier: Any = None

    def options(self) -> SamplingOptions:
        """Returns how to sample. Raises `BadRequest`."""
        return SamplingOptions(
            samples=self.n or 1,
            max_tokens=self.max_completion_tokens or self.max_tokens or DEFAULT_TOKENS,
            temperature=_as_sampled(self.temperature),
            top_p=1.0 if self.top_p is None else self.top_p,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            response_format=_checked_format(self.response_format),
        )

    def chat(self) -> list[dict[str, Any]]:
        """Returns the messages for a chat template.

        Raises `BadRequest` for content parts that are not text.
        """
        for i, message in enumerate(self.messages):
            for j, content_part in enumerate(message.content if isinstance(message.content, list) else ()):
                if not isinstance(content_part.get("text"), str):
                    where = f"messages[{i}].content[{j}]"
                    raise BadRequest(f"Invalid value for '{where}': models here read text only.", param=where)
        return [message.model_dump(exclude_none=True) for message in self.messages]


class Usage(NamedTuple):
    """Counts the tokens of one request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


def chat_completion(request: ChatRequest, sampled: SampledCompletions) -> dict[str, Any]:
    """Returns a `chat.completion`."""
    written = sum(len(completion.tokens) for completion in sampled.completions)
    usage = Usage(sampled.prompt_tokens, written, sampled.prompt_tokens + written)
    return {
        "id": random_id("chatcmpl-"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.model,
        "choices": [
            {
                "index": i,
                "finish_reason": completion.finish_reason,
                "message": {"role": "assistant", "content": completion.text, "refusal": None},
                "logprobs": _logprobs(sampled, i) if request.logprobs else None,
            }
            for i, completion in enumerate(sampled.completions)
        ],
        "usage": usage._asdict(),
        "system_fingerprint": "cherry",
    }


def _logprobs(sampled: SampledCompletions, i: int) -> dict[str, Any]:
    pieces = zip(sampled.pieces[i], sampled.completions[i].logprobs, strict=True)
    content = [
        {"token": piece, "logprob": logprob, "bytes": list(piece.encode()), "top_logprobs": []}
        for piece, logprob in pieces
    ]
    return {"content": content, "refusal": None}


def _as_sampled(temperature: float | None) -> float:
    """Returns the temperature that is sampled at: 1 where none is asked for, 0 for what is next to it."""
    if temperature is None:
        return 1.0
    return temperature if temperature >= LEAST_TEMPERATURE else 0.0


def _checked_format(raw: dict[str, Any] | None) -> dict[str, Any] | None:
    if raw is None:
        return None
    try:
        return checked(raw)
    except ResponseFormatInvalid as fault:
        at = f"response_format.{fault.param}" if fault.param else "response_format"
        raise BadRequest(
            fault.message.replace(f"'{fault.param}'", f"'{at}'"), param=at, code=fault.code
        ) from None
