"""Responses on the wire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from app.errors import ApiError, BadRequest, Refusals
from app.inference.parameters import (
    MAX_ALTERNATIVES,
    Effort,
    Ignored,
    MaxThinkingTokens,
    Model,
    SafetyIdentifier,
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
from app.inference.tools import OF_RESPONSES, offered, refusals_of_tools
from app.pagination import MAX_CURSOR
from app.responses.items import Item, kept_items, messages_of
from app.wire import Metadata, Wire

LEAST_TOKENS = 16
"""The least `max_output_tokens`, as at OpenAI."""
LOGPROBS = "message.output_text.logprobs"
HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "conversation": (),
    "prompt": (),
    "context_management": ([],),
    "image": (),
    "moderation": (),
    "access_programs": (),
    "background_options": (),
}
"""Parameters that ask for what is not here, with the values that do not."""
Include = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]
Status = Literal["completed", "failed", "in_progress", "cancelled", "queued", "incomplete"]


class TextOptions(Wire):
    """In which form the reply is. A schema stands beside its `type`, not below `json_schema` as in chats."""

    format: Any = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningOptions(Wire):
    """How much a model thinks. Thoughts are told as they are, and never summed up."""

    effort: Effort = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = Field(default=None, deprecated=True)


class ContextCreate(Wire):
    """What a reply is given to read."""

    model: Model
    input: Annotated[
        Any, Field(description="A text, or items: messages, function calls and their outputs.")
    ] = None
    instructions: str | None = None
    previous_response_id: Annotated[str, Field(min_length=1, max_length=MAX_CURSOR)] | None = None
    text: TextOptions | None = None
    tools: Tools = None
    tool_choice: ToolChoice = None
    reasoning: ReasoningOptions | None = None
    max_thinking_tokens: MaxThinkingTokens = None
    chat_template_kwargs: TemplateKwargs = None
    template_kwargs: TemplateKwargs = None
    conversation: Unavailable = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None

    def items(self) -> list[Item]:
        """Returns the items of the request, which are right."""
        return kept_items(self.input, Refusals())

    def read(self, before: Sequence[Item]) -> dict[str, Any]:
        """Returns what a model's server is given to read, `before` being what the request goes on."""
        shown = offered(self.tools, self.tool_choice, OF_RESPONSES)
        return given(
            messages=messages_of([*before, *self.items()], self.instructions),
            tools=shown.tools,
            tool_choice=shown.choice,
            reasoning_effort=self.reasoning.effort if self.reasoning else None,
            max_thinking_tokens=self.max_thinking_tokens,
            chat_template_kwargs=self.chat_template_kwargs or self.template_kwargs or None,
        )

    def response_format(self) -> dict[str, Any] | None:
        """Returns the form of the reply as chats tell it. Raises `BadRequest`."""
        return _checked_format(self.text.format if self.text else None)


class TokenCount(ContextCreate):
    """What is counted."""

    personality: Ignored = None


class ResponseCreate(ContextCreate):
    """What is asked of a model."""

    max_output_tokens: int | None = Field(default=None, ge=LEAST_TOKENS)
    max_tool_calls: int | None = None
    temperature: Temperature = None
    top_p: TopP = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_ALTERNATIVES)
    include: list[Include] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    background: bool | None = None
    metadata: Metadata | None = None
    prompt: Unavailable = None
    context_management: Unavailable = None
    image: Unavailable = None
    moderation: Unavailable = None
    access_programs: Unavailable = None
    background_options: Unavailable = None
    user: str | None = None
    safety_identifier: SafetyIdentifier = None
    prompt_cache_key: str | None = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None
    service_tier: Ignored = None

    @property
    def is_stored(self) -> bool:
        """Tells whether the response is kept, which it is unless the request says no."""
        return self.store is not False

    @property
    def wants_logprobs(self) -> bool:
        """Tells whether the reply's tokens are told with their log probabilities."""
        return LOGPROBS in (self.include or ()) or bool(self.top_logprobs)


def refusals_of_response(body: Mapping[str, Any]) -> list[ApiError]:
    """Returns what is wrong with the parameters of a request besides their form."""
    refusals = Refusals()
    kept_items(body.get("input"), refusals)
    refusals.all += unavailable(body, HARMLESS)
    refusals.all += refusals_of_tools(body.get("tools"), body.get("tool_choice"), OF_RESPONSES)
    text = body.get("text")
    with refusals:
        _checked_format(text.get("format") if isinstance(text, Mapping) else getattr(text, "format", None))
    if body.get("background") and body.get("store") is False:
        message = "Invalid value for 'store': a response in the background must be stored."
        refusals.all.append(BadRequest(message, param="store", code="invalid_value"))
    return refusals.all


def tools_told(tools: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the functions of a request as a response tells them: `parameters` and `strict` are there."""
    return [{"parameters": None, "strict": False, **tool} for tool in tools]


def _checked_format(asked: Any) -> dict[str, Any] | None:
    """Returns a response format as chats tell it. Raises `BadRequest` with the names of this form."""
    if isinstance(asked, Mapping) and asked.get("type") == "json_schema" and "json_schema" not in asked:
        block = {name: value for name, value in asked.items() if name != "type"}
        if "schema" not in block:
            at = "text.format.schema"
            raise BadRequest(
                f"Missing required parameter: '{at}'.", param=at, code="missing_required_parameter"
            )
        asked = {"type": "json_schema", "json_schema": block}
    try:
        return check_response_format(asked)
    except BadRequest as fault:
        raise renamed(fault) from None


NAMES = (
    ("reasoning_effort", "reasoning.effort"),
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("max_completion_tokens", "max_output_tokens"),
    ("messages", "input"),
)
"""Parameters of chats, and what they are called here."""


def renamed(fault: ApiError) -> ApiError:
    """Returns a fault of a chat request in the words of this endpoint."""
    for theirs, ours in NAMES:
        if fault.param is not None and (
            fault.param == theirs or fault.param.startswith((f"{theirs}.", f"{theirs}["))
        ):
            told = fault.message.replace(f"{theirs} have", f"{ours} has")  # one input, several messages
            fault.message = told.replace(fault.param, ours + fault.param.removeprefix(theirs))
            is_place = theirs == "messages" and fault.param != theirs  # items are numbered otherwise
            fault.param = ours if is_place else ours + fault.param.removeprefix(theirs)
            break
    if fault.param is not None and fault.param.startswith("tools["):  # functions are flat here
        theirs, ours = fault.param, fault.param.replace(".function", "", 1)
        fault.message, fault.param = fault.message.replace(theirs, ours), ours
    return fault


class InputDetails(BaseModel):
    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(BaseModel):
    reasoning_tokens: int


class ResponseUsage(BaseModel):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ResponseFault(BaseModel):
    code: str
    message: str


class IncompleteDetails(BaseModel):
    reason: Literal["max_output_tokens", "content_filter"]


class ResponseOut(BaseModel):
    """A response. `usage` is left out until it is known."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Status
    background: bool
    error: ResponseFault | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: dict[str, Any]
    safety_identifier: str | None
    service_tier: str
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: str
    usage: ResponseUsage | None = Field(default=None, exclude_if=lambda value: value is None)
    user: str | None = Field(default=None, exclude_if=lambda value: value is None)


class ItemList(BaseModel):
    """Items of a response's context. Where a page is empty, its ends are empty texts."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str
    last_id: str
    has_more: bool


class InputTokens(BaseModel):
    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class ResponseDeleted(BaseModel):
    id: str
    object: Literal["response"] = "response"
    deleted: bool = True
