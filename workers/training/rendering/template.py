"""A chat template, and the form in which it reads messages, found out by trying."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from methods.messages import RowInvalid, arguments_object
from workers.training.rendering.conversation import Conversation, conversation

KEPT = 32
"""Templates whose form is remembered. A process meets those of a few models; chosen, not measured."""
SYSTEM, ASKED, ANSWER, RESULT = "xCherrySystemx", "xCherryAskedx", "xCherryAnswerx", "xCherryResultx"
NAME, KEY, VALUE = "xCherryNamex", "xCherryKeyx", "xCherryValuex"
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "x", "description": "x", "parameters": {"type": "object", "properties": {}}},
}
"""What a template is tried with where it is used with tools."""
_VARIABLES = "variables_of_cherry"
"""The attribute of a tokenizer that holds what its template is rendered with."""
CALL_ID = "cherry000"
"""Some templates take ids of nine letters and digits only."""


@dataclass(frozen=True)
class Template:
    """Is one of a tokenizer's chat templates, used with tools or without. Equal ones render the same."""

    text: str
    special: tuple[tuple[str, str], ...]
    has_tools: bool
    tokenizer: Any = field(compare=False)
    variables: tuple[tuple[str, Any], ...] = ()

    def render(self, talk: Conversation, *, is_open: bool) -> str:
        """Returns a conversation as the model reads it; where it `is_open`, with the generation prompt.

        Raises what the template raises, and `RowInvalid` for arguments that are no JSON object.
        """
        return self.write(form_of(self).dress(talk), is_open=is_open)

    def write(self, talk: Conversation, *, is_open: bool) -> str:
        """Renders a conversation whose form is the template's already."""
        return str(
            self.tokenizer.apply_chat_template(
                talk.messages,
                tools=talk.tools,
                chat_template=self.text,
                add_generation_prompt=is_open,
                tokenize=False,
                **dict(self.variables),
            )
        )

    def trial(self, *messages: dict[str, Any]) -> Conversation:
        """Returns a conversation to try the template with, with a tool if it is used with some."""
        return conversation({"messages": messages, "tools": [TOOL] if self.has_tools else None})

    def tokens(self, text: str) -> list[int]:
        """Returns the ids of a rendered text, which holds its special tokens already."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


@dataclass(frozen=True)
class Form:
    """Says how a template reads messages.

    Attributes:
        in_parts: roles whose content it reads as a list of parts; it would render a text as nothing.
        arguments_are_text: it takes the arguments of calls as JSON text, and no objects.
        needs_descriptions: it refuses tools without a description, as gpt-oss's does; they get an empty one.
    """

    in_parts: frozenset[str] = frozenset()
    arguments_are_text: bool = False
    needs_descriptions: bool = False

    def dress(self, talk: Conversation) -> Conversation:
        """Returns a conversation in this form. Raises `RowInvalid` for arguments that are no JSON object."""
        tools = talk.tools
        if tools and self.needs_descriptions:
            tools = [_described(tool) for tool in tools]
        return Conversation([self._message(message) for message in talk.messages], tools)

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        dressed = dict(message)
        if message["role"] in self.in_parts:
            dressed["content"] = [{"type": "text", "text": message["content"]}]
        if calls := message.get("tool_calls"):
            dressed["tool_calls"] = [self._call(call) for call in calls]
        return dressed

    def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        given = call["function"]["arguments"]
        try:
            arguments: Any = arguments_object(given)
        except RowInvalid as problem:
            raise RowInvalid(f"the arguments of a tool call {problem}") from None
        if self.arguments_are_text:
            arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        return {**call, "function": {**call["function"], "arguments": arguments}}


def template_of(tokenizer: Any, tools: Sequence[Any] | None) -> Template:
    """Returns the template that is used with these tools, or with none: `tool_use` or `default` of several.

    Raises `ValueError` for a tokenizer without one.
    """
    text = tokenizer.get_chat_template(None, tools or None)
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    variables: Mapping[str, Any] = getattr(tokenizer, _VARIABLES, {})
    pairs = tuple(sorted(special.items())), bool(tools), tokenizer, tuple(sorted(variables.items()))
    return Template(text, *pairs)


def with_variables(tokenizer: Any, variables: Mapping[str, Any]) -> Any:
    """Returns a tokenizer whose chat template is rendered with these variables; the given one stays as it is.

    They are in nothing that is saved.
    """
    if not variables:
        return tokenizer
    found = copy.copy(tokenizer)
    setattr(found, _VARIABLES, dict(variables))
    return found


def rendered_or_none(template: Template, talk: Conversation, form: Form | None = None) -> str | None:
    """Returns a conversation of marks as it is rendered, None where the template refuses it."""
    try:
        return template.write((form or form_of(template)).dress(talk), is_open=not talk.ends_with_answer)
    except MemoryError:
        raise
    except Exception:  # a template is a program of its own and may refuse this conversation in any way
        return None


@lru_cache(maxsize=KEPT)
def form_of(template: Template) -> Form:
    """Finds out in which form a template reads messages, role by role, from what it makes of marks."""
    form = Form(needs_descriptions=template.has_tools and _refuses_bare_tools(template))
    for role, talk, mark in _trials(template):
        if role == "tool":
            form = replace(form, arguments_are_text=_takes_text_alone(template, form))
        in_parts = replace(form, in_parts=form.in_parts | {role})
        if not _shows(template, talk, mark, form) and _shows(template, talk, mark, in_parts):
            form = in_parts
    return form


def _described(tool: dict[str, Any]) -> dict[str, Any]:
    """Returns a tool with an empty description where it has none."""
    function = tool.get("function")
    if not isinstance(function, dict) or "description" in function:
        return tool
    return {**tool, "function": {**function, "description": ""}}


def _refuses_bare_tools(template: Template) -> bool:
    asked = template.trial({"role": "user", "content": ASKED})
    bare = {name: value for name, value in TOOL["function"].items() if name != "description"}
    talk = Conversation(asked.messages, [{**TOOL, "function": bare}])
    return (
        rendered_or_none(template, talk, Form()) is None
        and rendered_or_none(template, asked, Form()) is not None
    )


def _trials(template: Template) -> Iterable[tuple[str, Conversation, str]]:
    user = {"role": "user", "content": ASKED}
    yield "user", template.trial(user), ASKED
    yield "system", template.trial({"role": "system", "content": SYSTEM}, user), SYSTEM
    yield "assistant", template.trial(user, {"role": "assistant", "content": ANSWER}), ANSWER
    result = {"role": "tool", "content": RESULT, "tool_call_id": CALL_ID, "name": NAME}
    yield "tool", template.trial(user, _calling(), result), RESULT


def _calling() -> dict[str, Any]:
    call = {"id": CALL_ID, "type": "function", "function": {"name": NAME, "arguments": {KEY: VALUE}}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _takes_text_alone(template: Template, form: Form) -> bool:
    """Whether JSON text is written as it is, and objects are refused, left out or written as Python would."""
    talk = template.trial({"role": "user", "content": ASKED}, _calling())
    as_object = rendered_or_none(template, talk, form)
    if as_object is not None and VALUE in as_object and repr({KEY: VALUE}) not in as_object:
        return False
    as_text = rendered_or_none(template, talk, replace(form, arguments_are_text=True))
    return as_text is not None and json.dumps({KEY: VALUE}) in as_text


def _shows(template: Template, talk: Conversation, mark: str, form: Form) -> bool:
    return mark in (rendered_or_none(template, talk, form) or "")
