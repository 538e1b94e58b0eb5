"""From the tools of a request to the grammar that its answer is held to: what cannot be held is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from app.errors import BadRequest
from methods.response_format import grammar_of, schema_of
from workers.serving.parts.call_grammar import Calling, grammar_of_calls
from workers.serving.wire import ChatRequest, Named

if TYPE_CHECKING:
    from workers.serving.parts.model_parts import ModelParts

UNSUPPORTED = "unsupported_parameter"
UNREAD = "The tool calls of this model's family are not understood here, so it cannot be given tools."
FREE = "This model's family writes tool calls in a form that no grammar here holds"


class Held(NamedTuple):
    """Is the text of a grammar, None for none, and the parameter that asked for it."""

    text: str | None
    param: str


def held_answer(
    request: ChatRequest, response_format: Mapping[str, Any] | None, parts: ModelParts | None, tokenizer: Any
) -> Held:
    """Returns what the answer is held to. Raises `BadRequest` where it cannot be held to what was asked."""
    calling = _calling(request)
    if calling is None:
        return Held(grammar_of(response_format), "response_format")
    if parts is None or not parts.reader.calls_tools:
        raise BadRequest(UNREAD, param="tools", code=UNSUPPORTED)
    schema = schema_of(response_format)
    param = _asks_for(request, calling, has_schema=schema is not None)
    if param is None:
        return Held(None, "tools")
    is_free = parts.syntax is None or (parts.syntax.between_parts is None and _needs_json(calling))
    if parts.syntax is None or is_free:
        raise BadRequest(f"{FREE}; leave '{param}' out.", param=param, code=UNSUPPORTED)
    text = grammar_of_calls(calling, parts.syntax, parts.call_tag, tokenizer, schema)
    return Held(text, "tools")


def _calling(request: ChatRequest) -> Calling | None:
    """Returns how tools may be called; None where none may."""
    tools, choice = request.shown_tools(), request.tool_choice
    if isinstance(choice, Named):
        tools = [tool for tool in tools if tool["function"]["name"] == choice.function.name]
        if not tools:
            told = f"Invalid value for 'tool_choice': there is no tool {choice.function.name[:64]!r}."
            raise BadRequest(told, param="tool_choice", code="invalid_value")
    if not tools:
        return None
    is_forced = isinstance(choice, Named) or choice == "required"
    return Calling(tuple(tools), is_forced, request.parallel_tool_calls is False)


def _needs_json(calling: Calling) -> bool:
    return calling.has_strict or calling.is_single


def _asks_for(request: ChatRequest, calling: Calling, *, has_schema: bool) -> str | None:
    """Returns the parameter that a grammar is needed for; None where none is."""
    if calling.has_strict:
        strict = [bool(tool.function.strict) for tool in request.tools or ()]
        return f"tools[{strict.index(True)}].function.strict"
    if calling.is_single:
        return "parallel_tool_calls"
    if calling.is_forced:
        return "tool_choice"
    return "response_format" if has_schema else None
