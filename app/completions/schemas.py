"""Text completions on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from app.chat.schemas import UsageOut
from app.errors import ApiError, BadRequest
from app.inference.parameters import (
    Choices,
    LogitBias,
    Model,
    Penalty,
    Seed,
    Stop,
    StreamOptions,
    Temperature,
    TopP,
    Unavailable,
    given,
    unavailable,
)
from app.wire import Wire

DEFAULT_TOKENS = 16
MOST_OF = 20
MAX_TOGETHER = 1024
"""The most completions of one request, of all its prompts, as the sampler takes them."""
MAX_TOKEN = 2**31 - 1
NO_PROMPT = ""
"""What stands for a prompt where there is none: a new document begins."""
HARMLESS: Mapping[str, tuple[Any, ...]] = {"suffix": ("",)}


class CompletionCreate(Wire):
    """What is asked of a model."""

    model: Model
    prompt: Annotated[Any, Field(description="A text, texts, tokens, or lists of tokens.")] = None
    max_tokens: int | None = Field(default=None, ge=0)
    n: Choices = None
    best_of: int | None = Field(default=None, ge=0, le=MOST_OF)
    temperature: Temperature = None
    top_p: TopP = None
    stop: Stop = None
    seed: Seed = None
    logprobs: int | None = Field(default=None, ge=0, le=5)
    echo: bool | None = None
    logit_bias: LogitBias = None
    frequency_penalty: Penalty = None
    presence_penalty: Penalty = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    suffix: Unavailable = None
    user: str | None = None

    @property
    def drawn(self) -> int:
        """Returns how many completions of each prompt are sampled, of which `n` are given."""
        return self.best_of or self.n or 1

    @property
    def prompts(self) -> list[Any]:
        """Returns each prompt, a text or a list of tokens."""
        if self.prompt is None:
            return [NO_PROMPT]
        is_one = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        return [self.prompt] if is_one else list(self.prompt)

    def asked(self) -> dict[str, Any]:
        """Returns what the model's server is asked, but for the model."""
        is_chosen = self.drawn > (self.n or 1)
        return given(
            prompt=NO_PROMPT if self.prompt is None else self.prompt,
            max_tokens=DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens,
            n=self.drawn,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=self.stop or None,
            seed=self.seed,
            logprobs=0 if is_chosen and self.logprobs is None else self.logprobs,
            echo=self.echo or None,
            logit_bias=self.logit_bias or None,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
        )


def refusals_of_completion(body: Mapping[str, Any]) -> list[ApiError]:
    """Returns what is wrong with the parameters of a request besides their form."""
    found = list(unavailable(body, HARMLESS))
    if (fault := _of_prompt(body.get("prompt"))) is not None:
        found.append(fault)
    n, best_of = body.get("n") or 1, body.get("best_of") or 0
    if isinstance(best_of, int) and isinstance(n, int):
        if best_of and best_of < n:
            told = f"Invalid value for 'best_of': expected at least 'n', {n}, but got {best_of} instead."
            found.append(BadRequest(told, param="best_of", code="integer_below_min_value"))
        if best_of > n and body.get("stream"):
            told = "Invalid value for 'best_of': what is chosen from cannot be streamed."
            found.append(BadRequest(told, param="best_of", code="invalid_value"))
    if body.get("max_tokens") == 0 and not body.get("echo"):
        told = "Invalid value for 'max_tokens': 0 is for 'echo', which shows the prompt alone."
        found.append(BadRequest(told, param="max_tokens", code="integer_below_min_value"))
    if isinstance(body.get("prompt"), list) and isinstance(n, int) and isinstance(best_of, int):
        found += _of_number(len(body["prompt"]), max(n, best_of), body["prompt"])
    return found


def _of_number(prompts: int, each: int, prompt: list[Any]) -> list[ApiError]:
    is_one = bool(prompt) and isinstance(prompt[0], int)
    if is_one or prompts * each <= MAX_TOGETHER:
        return []
    told = f"Invalid value for 'prompt': at most {MAX_TOGETHER} completions can be asked for at a time."
    return [BadRequest(told, param="prompt", code="array_above_max_length")]


def _of_prompt(prompt: Any) -> ApiError | None:
    if prompt is None or isinstance(prompt, str) or _is_tokens(prompt):
        return None
    kinds = (_is_text, _is_tokens)
    if isinstance(prompt, list) and prompt and any(all(map(is_kind, prompt)) for is_kind in kinds):
        return None
    told = "Invalid type for 'prompt': expected a string, strings, tokens, or arrays of tokens."
    return BadRequest(told, param="prompt", code="invalid_type")


def _is_text(prompt: Any) -> bool:
    return isinstance(prompt, str)


def _is_tokens(prompt: Any) -> bool:
    is_list = isinstance(prompt, list) and bool(prompt)
    return is_list and all(type(token) is int and 0 <= token <= MAX_TOKEN for token in prompt)


class TextLogprobs(BaseModel):
    """The first token of an echoed prompt has no log probability, and is told with 0."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(BaseModel):
    text: str
    index: int
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length", "content_filter"]


class TextCompletion(BaseModel):
    """A whole completion; a stream sends objects of this form with parts of the texts."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: UsageOut
    system_fingerprint: str
