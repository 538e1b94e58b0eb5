"""What a run may be asked to judge: the forms of its data source, checked as far as that needs no row."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from app.errors import BadRequest, Refusals
from app.jobs.request import checked_response_format
from app.validation_errors import read_as
from app.wire import Metadata, Wire
from graders import GraderInvalid
from graders.judges.messages import MessageTemplate
from graders.judges.spec import MessageSpec
from graders.template import Variable

PARAM = "data_source"
SOURCE, MESSAGES, SAMPLING = f"{PARAM}.source", f"{PARAM}.input_messages", f"{PARAM}.sampling_params"
MAX_SEED = 2**63 - 1
MAX_VARIABLES = 32
"""Variables for a chat template, as a chat may give."""
MAX_MESSAGES = 256
"""Messages of a template. Chosen, not measured."""
MAX_LOGGED = 1_000_000
"""Stored completions or responses that a run may ask for. Chosen, not measured."""
TEMPERATURE, TOP_P, SEED = 1.0, 1.0, 42
"""What OpenAI samples with where nothing else is asked for."""

Moment = Annotated[int | None, Field(ge=0, le=2**40)]
"""Seconds since 1970."""


class Row(Wire):
    """One row of data, with what was answered to it if that is known."""

    item: dict[str, Any]
    sample: dict[str, Any] | None = None


class FileContent(Wire):
    type: Literal["file_content"]
    content: list[Row] = Field(min_length=1)


class FileId(Wire):
    type: Literal["file_id"]
    id: str = Field(min_length=1, max_length=256)


class StoredCompletions(Wire):
    """Chat completions that were stored, those of the eval's own metadata where it is of logs."""

    type: Literal["stored_completions"]
    metadata: Metadata | None = None
    model: str | None = None
    created_after: Moment = None
    created_before: Moment = None
    limit: int | None = Field(default=None, ge=1, le=MAX_LOGGED)


class StoredResponses(Wire):
    """Responses that were stored."""

    type: Literal["responses"]
    metadata: Metadata | None = None
    model: str | None = None
    created_after: Moment = None
    created_before: Moment = None
    limit: int | None = Field(default=None, ge=1, le=MAX_LOGGED)
    instructions_search: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    reasoning_effort: str | None = None
    tools: list[str] | None = None
    users: list[str] | None = None


class TemplateMessages(Wire):
    type: Literal["template"]
    template: list[MessageSpec] = Field(min_length=1, max_length=MAX_MESSAGES)


class ItemReference(Wire):
    type: Literal["item_reference"]
    item_reference: str = Field(min_length=1, max_length=1024)


class SamplingParams(Wire):
    """How answers are sampled; both spellings of the limit that OpenAI's pages have are taken."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-MAX_SEED - 1, le=MAX_SEED)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    max_completions_tokens: int | None = Field(default=None, ge=1)
    reasoning_effort: str | None = None
    max_thinking_tokens: int | None = Field(default=None, ge=0)
    chat_template_kwargs: dict[str, Any] | None = Field(default=None, max_length=MAX_VARIABLES)
    template_kwargs: dict[str, Any] | None = Field(default=None, max_length=MAX_VARIABLES)
    tools: list[dict[str, Any]] | None = None


class ChatSampling(SamplingParams):
    response_format: dict[str, Any] | None = None


class ResponseSampling(SamplingParams):
    text: dict[str, Any] | None = None


class JsonlSource(Wire):
    type: Literal["jsonl"]
    source: dict[str, Any]


class SampledSource(Wire):
    """Data that a model answers to, or that was answered before.

    `base_url` and `api_key_name` are extensions: another server's address, and the name of a key that the
    operator has set for it.
    """

    type: Literal["completions", "responses"]
    source: dict[str, Any]
    model: str | None = Field(default=None, min_length=1, max_length=256)
    input_messages: dict[str, Any] | None = None
    sampling_params: dict[str, Any] | None = None
    base_url: str | None = Field(default=None, min_length=1, max_length=2048)
    api_key_name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]{1,64}$")


FILES: Mapping[str, type[BaseModel]] = {"file_content": FileContent, "file_id": FileId}
SOURCES: Mapping[str, Mapping[str, type[BaseModel]]] = {
    "jsonl": FILES,
    "completions": {**FILES, "stored_completions": StoredCompletions},
    "responses": {**FILES, "responses": StoredResponses},
}
"""By the type of a data source, the types of what fills its items."""
KINDS: Mapping[str, type[BaseModel]] = {
    "jsonl": JsonlSource,
    "completions": SampledSource,
    "responses": SampledSource,
}
INPUTS: Mapping[str, type[BaseModel]] = {"template": TemplateMessages, "item_reference": ItemReference}


def check(raw: Mapping[str, Any]) -> None:
    """Checks a data source. Raises `BadRequest` with all that is wrong."""
    kind = kind_of(raw, KINDS, PARAM)
    read_as(KINDS[kind], raw, PARAM)
    refusals = Refusals()
    source = raw["source"]
    with refusals:
        read_as(SOURCES[kind][kind_of(source, SOURCES[kind], SOURCE)], source, SOURCE)
    if kind != "jsonl":
        with refusals:
            _check_messages(raw)
        with refusals:
            _check_sampling(kind, raw.get("sampling_params"))
        with refusals:
            _check_names(raw)
    refusals.raise_any()


def kind_of(raw: Mapping[str, Any], known: Collection[str], param: str) -> str:
    """Returns the type of a block. Raises `BadRequest` for one that is not known."""
    kind = raw.get("type")
    if isinstance(kind, str) and kind in known:
        return kind
    at = f"{param}.type"
    if kind is None:
        raise BadRequest(f"Missing required parameter: '{at}'.", param=at, code="missing_required_parameter")
    supported = ", ".join(f"'{name}'" for name in known)
    message = f"Invalid value: {str(kind)[:80]!r} for '{at}'. Supported values are: {supported}."
    raise BadRequest(message, param=at, code="invalid_value")


def _check_messages(raw: Mapping[str, Any]) -> None:
    """Checks what a model is asked; logs say it themselves."""
    messages = raw.get("input_messages")
    if messages is None:
        if raw.get("model") is not None and raw["source"].get("type") in FILES:
            message = (
                f"Missing required parameter: '{MESSAGES}': what the model is asked about each item, a"
                " 'template' or an 'item_reference'."
            )
            raise BadRequest(message, param=MESSAGES, code="missing_required_parameter")
        return
    read = read_as(INPUTS[kind_of(messages, INPUTS, MESSAGES)], messages, MESSAGES)
    try:
        if isinstance(read, ItemReference):
            _check_reference(read.item_reference)
        elif isinstance(read, TemplateMessages):
            for number, one in enumerate(read.template):
                _check_template(one, f"{MESSAGES}.template[{number}].content")
    except GraderInvalid as fault:
        at = fault.param or f"{MESSAGES}.item_reference"
        raise BadRequest(f"Invalid value for '{at}': {fault.message}", param=at, code=fault.code) from None


def _check_reference(path: str) -> None:
    if Variable.parse(path).namespace != "item":
        raise GraderInvalid("It names a value of the row, such as item.messages.")


def _check_template(message: MessageSpec, at: str) -> None:
    rendered = MessageTemplate.of(message)
    if any(each.template.reads_sample for each in rendered.content):
        raise GraderInvalid(
            "There is no 'sample' yet where a model is asked: it reads 'item' only.", param=at
        )


def _check_sampling(kind: str, raw: Any) -> None:
    form = ChatSampling if kind == "completions" else ResponseSampling
    read = read_as(form, raw, SAMPLING)
    if len({read.max_completion_tokens, read.max_completions_tokens} - {None}) > 1:
        at = f"{SAMPLING}.max_completions_tokens"
        message = f"Invalid value for '{at}': max_completion_tokens says another number; give one of them."
        raise BadRequest(message, param=at, code="invalid_value")
    response_format(kind, raw or {})


def response_format(kind: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the form of answers that is asked for, as chats have it. Raises `BadRequest`."""
    if kind == "completions":
        found = checked_response_format(params.get("response_format"), f"{SAMPLING}.response_format")
    else:
        asked = (params.get("text") or {}).get("format")
        if isinstance(asked, dict) and asked.get("type") == "json_schema" and "json_schema" not in asked:
            block = {name: value for name, value in asked.items() if name != "type"}
            asked = {"type": "json_schema", "json_schema": block}
        found = checked_response_format(asked, f"{SAMPLING}.text.format")
    return None if found == {"type": "text"} else found


def sampling(kind: str, raw: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the parameters of a chat call that a checked block means, OpenAI's defaults filled in."""
    params = {name: value for name, value in (raw or {}).items() if value is not None}
    limit = params.get("max_completion_tokens", params.get("max_completions_tokens"))
    found = {
        "temperature": params.get("temperature", TEMPERATURE),
        "top_p": params.get("top_p", TOP_P),
        "seed": params.get("seed", SEED),
        "max_completion_tokens": limit,
        "response_format": response_format(kind, params),
        "tools": [_chat_tool(tool) for tool in params.get("tools") or ()] or None,
        "reasoning_effort": params.get("reasoning_effort"),
        "max_thinking_tokens": params.get("max_thinking_tokens"),
        "chat_template_kwargs": params.get("chat_template_kwargs") or params.get("template_kwargs") or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _chat_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a tool in the form of chats: in a response it is flat."""
    if tool.get("type") == "function" and "function" not in tool:
        return {"type": "function", "function": {key: tool[key] for key in tool if key != "type"}}
    return dict(tool)


def _check_names(raw: Mapping[str, Any]) -> None:
    """Checks that address and key belong together, and to a model."""
    for name, needs in (("base_url", "model"), ("api_key_name", "base_url"), ("input_messages", "model")):
        if raw.get(name) is not None and raw.get(needs) is None:
            at = f"{PARAM}.{needs}"
            message = f"Missing required parameter: '{at}': '{PARAM}.{name}' means nothing without it."
            raise BadRequest(message, param=at, code="missing_required_parameter")
