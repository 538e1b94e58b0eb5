"""Chat completions on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.chat.messages import chat_messages, refusals_of_messages
from app.chat.models import StoredChat
from app.errors import ApiError, BadRequest, Refusals
from app.inference.parameters import (
    MAX_ALTERNATIVES,
    Choices,
    Effort,
    Ignored,
    LogitBias,
    MaxThinkingTokens,
    Model,
    Penalty,
    SafetyIdentifier,
    Seed,
    Stop,
    StreamOptions,
    Temperature,
    TemplateKwargs,
    ToolChoice,
    Tools,
    TopP,
    Unavailable,
    check_response_format,
    given,
    unavailable,
)
from app.inference.tools import OF_CHATS, offered, refusals_of_tools
from app.pagination import page_of
from app.wire import Metadata, Wire
from methods.messages import text_of, thought_of

HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "functions": ([],),
    "function_call": ("auto", "none"),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "moderation": (),
}
"""Parameters that ask for what is not here, with the values that do not."""


class ChatCreate(Wire):
    """What is asked of a model."""

    model: Model
    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1, deprecated=True)
    n: Choices = None
    temperature: Temperature = None
    top_p: TopP = None
    stop: Stop = None
    seed: Seed = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_ALTERNATIVES)
    logit_bias: LogitBias = None
    frequency_penalty: Penalty = None
    presence_penalty: Penalty = None
    response_format: Any = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    tools: Tools = None
    tool_choice: ToolChoice = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort = None
    max_thinking_tokens: MaxThinkingTokens = None
    chat_template_kwargs: TemplateKwargs = None
    template_kwargs: TemplateKwargs = None
    functions: Unavailable = None
    function_call: Unavailable = None
    modalities: Unavailable = None
    audio: Unavailable = None
    web_search_options: Unavailable = None
    moderation: Unavailable = None
    user: str | None = None
    safety_identifier: SafetyIdentifier = None
    prompt_cache_key: str | None = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None
    service_tier: Ignored = None
    verbosity: Ignored = None
    prediction: Ignored = None

    def asked(self) -> dict[str, Any]:
        """Returns what the model's server is asked, but for the model."""
        shown = offered(self.tools, self.tool_choice, OF_CHATS)
        return given(
            messages=chat_messages(self.messages),
            max_completion_tokens=self.max_completion_tokens or self.__dict__["max_tokens"],
            n=self.n,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=self.stop or None,
            seed=self.seed,
            logprobs=self.logprobs or None,
            top_logprobs=self.top_logprobs if self.logprobs else None,
            logit_bias=self.logit_bias or None,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            response_format=check_response_format(self.response_format),
            tools=shown.tools,
            tool_choice=shown.choice,
            parallel_tool_calls=self.parallel_tool_calls if shown.tools else None,
            reasoning_effort=self.reasoning_effort,
            max_thinking_tokens=self.max_thinking_tokens,
            chat_template_kwargs=self.chat_template_kwargs or self.template_kwargs or None,
        )


def refusals_of_chat(body: Mapping[str, Any]) -> list[ApiError]:
    """Returns what is wrong with the parameters of a request besides their form."""
    refusals = Refusals()
    refusals.all += [*refusals_of_messages(body.get("messages")), *unavailable(body, HARMLESS)]
    refusals.all += refusals_of_tools(body.get("tools"), body.get("tool_choice"), OF_CHATS)
    if body.get("top_logprobs") and not body.get("logprobs"):
        told = "Invalid value for 'top_logprobs': it needs 'logprobs' to be true."
        refusals.all.append(BadRequest(told, param="top_logprobs", code="invalid_value"))
    with refusals:
        check_response_format(body.get("response_format"))
    return refusals.all


class ChatUpdate(Wire):
    """The new metadata of a stored completion."""

    metadata: Metadata | None


class Alternative(BaseModel):
    """A token that might have been sampled."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(Alternative):
    """A token that was sampled."""

    top_logprobs: list[Alternative]


class Logprobs(BaseModel):
    content: list[TokenLogprob] | None
    refusal: list[TokenLogprob] | None


class FunctionCall(BaseModel):
    """The function that is to be called, and its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    id: str
    type: Literal["function"]
    function: FunctionCall


class MessageOut(BaseModel):
    """What the model wrote: `content` is its answer alone, beside its thoughts and calls if it has any."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    annotations: list[Any]
    reasoning_content: str | None = Field(default=None, exclude_if=lambda value: value is None)
    tool_calls: list[ToolCall] | None = Field(default=None, exclude_if=lambda value: value is None)


class ChoiceOut(BaseModel):
    index: int
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
    logprobs: Logprobs | None
    message: MessageOut


class PromptDetails(BaseModel):
    cached_tokens: int
    audio_tokens: int


class CompletionDetails(BaseModel):
    reasoning_tokens: int
    audio_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class UsageOut(BaseModel):
    """`cached_tokens` of the prompt were known from earlier requests."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class ChatCompletion(BaseModel):
    """A whole completion. `metadata` is there where it is stored."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChoiceOut]
    usage: UsageOut
    service_tier: Literal["default"] = "default"
    system_fingerprint: str
    metadata: dict[str, str] | None = None


class ChatCompletionList(BaseModel):
    """Stored completions. Where a page is empty, its ends are empty texts."""

    object: Literal["list"] = "list"
    data: list[ChatCompletion]
    first_id: str
    last_id: str
    has_more: bool

    @classmethod
    def of(cls, data: list[ChatCompletion], has_more: bool) -> ChatCompletionList:
        first, last = (data[0].id, data[-1].id) if data else ("", "")
        return cls(data=data, first_id=first, last_id=last, has_more=has_more)


class ContentPart(BaseModel):
    type: Literal["text"]
    text: str


class StoredMessage(BaseModel):
    """A message of the request of a stored completion; `content_parts` if its content came in parts."""

    id: str
    role: str
    content: str | None
    refusal: str | None = None
    name: str | None = None
    content_parts: list[ContentPart] | None = None
    reasoning_content: str | None = Field(default=None, exclude_if=lambda value: value is None)
    tool_calls: list[ToolCall] | None = Field(default=None, exclude_if=lambda value: value is None)
    tool_call_id: str | None = Field(default=None, exclude_if=lambda value: value is None)

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> StoredMessage:
        (clean,) = chat_messages([message])
        content: Any = clean.get("content")
        parts = [ContentPart(**part) for part in content] if isinstance(content, list) else None
        name = message.get("name")
        return cls(
            id=message["id"],
            role=message["role"],
            content=None if content is None else text_of(content),
            name=name if isinstance(name, str) else None,
            content_parts=parts,
            reasoning_content=thought_of(message) or None,
            tool_calls=clean.get("tool_calls"),
            tool_call_id=clean.get("tool_call_id"),
        )


class StoredMessageList(BaseModel):
    object: Literal["list"] = "list"
    data: list[StoredMessage]
    first_id: str
    last_id: str
    has_more: bool

    @classmethod
    def of(cls, row: StoredChat, *, after: str | None, limit: int, newest_first: bool) -> StoredMessageList:
        told = [{**message, "id": f"{row.id}-{place}"} for place, message in enumerate(row.messages)]
        page = page_of(told[::-1] if newest_first else told, after, limit)
        data = [StoredMessage.of(message) for message in page.rows]
        first, last = (data[0].id, data[-1].id) if data else ("", "")
        return cls(data=data, first_id=first, last_id=last, has_more=page.has_more)


class ChatCompletionDeleted(BaseModel):
    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    id: str
    deleted: bool = True
