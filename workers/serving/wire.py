"""Requests on the wire: what the sampler honours of OpenAI's chat completions and completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.errors import BadRequest
from methods.response_format import ResponseFormatInvalid, checked
from methods.train_config import LEAST_TEMPERATURE
from workers.serving.requests import Options

MAX_SAMPLES = 128
"""The most completions of one prompt, as at OpenAI."""
MAX_CHOICES = 1024
"""The most completions of one request, of all its prompts. Chosen, not measured."""
MAX_TOP_LOGPROBS, MAX_LOGPROBS = 20, 5
"""The most alternatives of a token, as at OpenAI: of chat completions, and of completions."""
MOST_TOOLS = 128
"""Functions of one request, as at OpenAI."""
DEFAULT_TEXT_TOKENS = 16
"""The longest completion of a text where the request does not say, as at OpenAI."""
INT64 = 2**63
"""Bounds seeds, as at OpenAI."""
Stop = Annotated[str, Field(min_length=1, max_length=256)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Prompt = str | list[int]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class StreamOptions(BaseModel):
    """Says what a stream tells beside text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SampleRequest(BaseModel):
    """Is what all requests have in common. Parameters that would change the completion and are not here are
    refused.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field(min_length=1, max_length=256)
    n: int | None = Field(default=None, ge=1, le=MAX_SAMPLES)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    seed: int | None = Field(default=None, ge=-INT64, lt=INT64)
    logit_bias: dict[str, Bias] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Any = None

    @property
    def has_usage(self) -> bool:
        """Whether a stream ends with a chunk that counts tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def stops(self) -> tuple[str, ...]:
        """Returns the texts that end a completion."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def options(self, max_tokens: int, vocabulary: int, **more: Any) -> Options:
        """Returns how to sample; `more` is what only one kind of request has. Raises `BadRequest`."""
        return Options(
            max_tokens=max_tokens,
            temperature=_as_sampled(self.temperature),
            top_p=1.0 if self.top_p is None else self.top_p,
            logit_bias=_bias(self.logit_bias or {}, vocabulary),
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            stop=self.stops,
            **more,
        )


class ChatMessage(BaseModel):
    """Is one message. Content parts are text: models here see no images and hear nothing."""

    model_config = ConfigDict(extra="allow")

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None


class Talk(BaseModel):
    """Holds messages, at least one."""

    messages: list[ChatMessage] = Field(min_length=1)

    def chat(self) -> list[dict[str, Any]]:
        """Returns the messages for a chat template.

        Raises `BadRequest` for content parts that are not text.
        """
        for i, message in enumerate(self.messages):
            for j, content_part in enumerate(message.content if isinstance(message.content, list) else ()):
                if not isinstance(content_part.get("text"), str):
                    where = f"messages[{i}].content[{j}]"
                    message_ = f"Invalid value for '{where}': models here read text only."
                    raise BadRequest(message_, param=where, code="invalid_value")
        return [message.model_dump(exclude_none=True) for message in self.messages]


class Function(BaseModel):
    """Is a function that the model may call."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=64)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """Is a tool, which is a function."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["function"]
    function: Function

    def shown(self) -> dict[str, Any]:
        """Returns it as chat templates read it."""
        return self.model_dump(exclude_none=True)


class Name(BaseModel):
    """Names a function."""

    name: str


class Named(BaseModel):
    """Chooses the one function that has to be called."""

    type: Literal["function"]
    function: Name


class ChatTemplateOptions(BaseModel):
    """Says what a chat template is given beside messages, and how much the model is to think."""

    tools: list[Tool] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | Named | None = None
    reasoning_effort: Effort | None = None
    max_thinking_tokens: int | None = Field(default=None, ge=0)
    chat_template_kwargs: dict[str, Any] | None = None

    def shown_tools(self) -> list[dict[str, Any]]:
        """Returns the tools that the model is shown: none where it is not to call any."""
        return [tool.shown() for tool in self.tools or () if self.tool_choice != "none"]


class ChatRequest(SampleRequest, Talk, ChatTemplateOptions):
    """Asks for a chat completion."""

    max_completion_tokens: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    store: Any = None
    metadata: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    service_tier: Any = None

    def most_tokens(self, room: int) -> int:
        """Returns how long a completion may be where the context has so much room."""
        return min(self.max_completion_tokens or self.max_tokens or room, room)

    @property
    def alternatives(self) -> int:
        """Returns how many alternatives are told beside each token. Raises `BadRequest`."""
        if self.top_logprobs is not None and not self.logprobs:
            message = "Invalid value for 'top_logprobs': it needs 'logprobs' to be true."
            raise BadRequest(message, param="top_logprobs", code="invalid_value")
        return self.top_logprobs or 0

    def checked_format(self) -> dict[str, Any] | None:
        """Returns the response format that is asked for. Raises `BadRequest`."""
        if self.response_format is None:
            return None
        try:
            return checked(self.response_format)
        except ResponseFormatInvalid as fault:
            at = f"response_format.{fault.param}" if fault.param else "response_format"
            message = fault.message.replace(f"'{fault.param}'", f"'{at}'")
            raise BadRequest(message, param=at, code=fault.code) from None


class TextRequest(SampleRequest):
    """Asks for completions of texts."""

    prompt: Any = None
    max_tokens: int | None = Field(default=None, ge=0)
    logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    echo: bool | None = None

    def most_tokens(self, room: int) -> int:
        """Returns how long a completion may be where the context has so much room."""
        return min(DEFAULT_TEXT_TOKENS if self.max_tokens is None else self.max_tokens, room)

    def prompts(self) -> list[Prompt]:
        """Returns the prompts one by one: texts, or ids of tokens; "" where none is given.

        Raises `BadRequest`.
        """
        given = "" if self.prompt is None else self.prompt
        found = given if _is_list_of_prompts(given) else [given]
        if not found or not all(isinstance(prompt, str) or _are_ids(prompt) for prompt in found):
            message = "Invalid type for 'prompt': expected a string, an array of strings, an array of"
            message += " token ids, or an array of such arrays."
            raise BadRequest(message, param="prompt", code="invalid_type")
        if len(found) * (self.n or 1) > MAX_CHOICES:
            message = f"'prompt' and 'n' ask for more than {MAX_CHOICES} completions at once."
            raise BadRequest(message, param="prompt", code="array_above_max_length")
        return list(found)

    def check(self) -> None:
        """Raises `BadRequest` for a request for nothing."""
        if self.max_tokens == 0 and not self.echo:
            message = "Invalid value for 'max_tokens': 0 tokens are written only with 'echo'."
            raise BadRequest(message, param="max_tokens", code="integer_below_min_value")


class CountRequest(Talk, ChatTemplateOptions):
    """Asks how many tokens messages have."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=256)


def _is_list_of_prompts(given: Any) -> bool:
    return isinstance(given, list) and bool(given) and isinstance(given[0], str | list)


def _are_ids(prompt: Any) -> bool:
    return (
        isinstance(prompt, list)
        and bool(prompt)
        and all(type(token) is int and token >= 0 for token in prompt)
    )


def _as_sampled(temperature: float | None) -> float:
    """Returns the temperature that is sampled at: 1 where none is asked for, 0 for what is next to it."""
    if temperature is None:
        return 1.0
    return temperature if temperature >= LEAST_TEMPERATURE else 0.0


def _bias(given: Mapping[str, float], vocabulary: int) -> dict[int, float]:
    """Returns what is added to the logits of tokens, by id. Raises `BadRequest`."""
    for token in given:
        if not (token.isascii() and token.isdigit() and int(token) < vocabulary):
            message = f"Invalid key in 'logit_bias': '{token[:20]}' is no token id below {vocabulary}."
            raise BadRequest(message, param="logit_bias", code="invalid_value")
    return {int(token): bias for token, bias in given.items()}
