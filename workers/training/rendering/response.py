"""A completion behind its thoughts, taken apart by a response template of transformers, and checked.

The parser keeps the last of two parts, drops text that lies in none, and reads what looks like a call for one
(`transformers.utils.chat_parsing`). So all that it does is watched here: what is lost makes a fault.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import regex
from transformers.utils.chat_parsing import ResponseParser
from transformers.utils.chat_parsing.response_templates import ResponseTemplate, load_response_template

from methods.messages import THOUGHTS, RowInvalid, arguments_object
from workers.training.base.parts import ToolCall
from workers.training.rendering.tool_types import with_types

ANSWER, CALLS = "content", "tool_calls"
_BETWEEN_ARGUMENTS = regex.compile(r"(?:[\s,]|</\w+>)*")
_STRIPPED = r">\s*(?P<value>.*?)\s*</parameter>"
_KEPT = r">\n?(?P<value>.*?)\n?</parameter>"
_OF_A_CALL = {"name", "arguments"}
_SHOWN = 60
"""Characters of a text that a fault shows. Chosen, not measured."""


class Unparsed(Exception):
    """Says in a sentence why a completion cannot be taken apart."""


@dataclass
class Response:
    """Holds what a completion consists of: pieces of text by field, calls, and what lies in no field."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    calls: list[ToolCall] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def of(self, *fields: str) -> list[str]:
        """Returns the pieces of some fields that are more than white space."""
        return [text for name in fields for text in self.texts.get(name, ()) if text.strip()]


class ResponseReader:
    """Reads completions by one response template."""

    def __init__(self, template: Mapping[str, Any], call_tag: str) -> None:
        """`call_tag` is what every tool call, or list of them, begins with; "" where that is not known."""
        self._call_tag = call_tag
        template = _mended(template)
        self._with_calls = load_response_template(dict(template))
        fields = {name: each for name, each in template["fields"].items() if name != CALLS}
        self._without_calls = load_response_template({**template, "fields": fields})

    @property
    def has_calls(self) -> bool:
        """Whether the template knows tool calls."""
        return CALLS in self._with_calls.fields

    def read(self, text: str, tools: Sequence[Mapping[str, Any]] | None) -> Response:
        """Takes a text apart. Raises `Unparsed`.

        Where calls stand in the text of an answer and begin with no tag, they are looked for only where there
        are tools.
        """
        is_bare = self._without_calls.implicit is not None and not self._call_tag
        may_call = bool(tools) if is_bare else self._call_tag in text
        chosen = self._with_calls if may_call else self._without_calls
        parser = _Watched(chosen, self._call_tag, with_types(tools or ()))
        try:
            parser.feed(text)
            if parser.is_calling:
                raise Unparsed("A tool call cannot be read: the completion ends in the middle of it.")
            parser.finalize()
        except (ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:_SHOWN]
            raise Unparsed(f"A tool call cannot be read: {reason}.") from None
        return parser.found


class _Watched(ResponseParser):
    """Is the parser of transformers, and notes what it makes of each piece of text."""

    def __init__(self, template: ResponseTemplate, call_tag: str, tools: Sequence[Any] | None) -> None:
        super().__init__(template, prefix="", tools=list(tools or ()) or None)  # the thoughts are gone
        self.found = Response()
        self._call_tag = call_tag
        self._call_ends = -1

    @property
    def is_calling(self) -> bool:
        """Whether a tool call has begun of which the end has not come."""
        if self._current != CALLS:
            return False
        close = self._spec.fields[CALLS].close_re
        return close is not None and close.search(self._buffer, self._pos) is None

    def _accumulate(self, events: list[dict[str, Any]], text: str) -> None:
        if text and self._current is None:
            self.found.lost.append(text)
        super()._accumulate(events, text)

    def _open_explicit(self, events: list[dict[str, Any]], field: Any, m: Any) -> None:
        if field.name == CALLS and self._call_tag not in m.group():
            between = self._buffer[self._call_ends : m.start()] if self._call_ends >= 0 else "x"
            if between.strip():
                raise Unparsed(f"The completion has a tool call without its mark: {_shown(m.group())}.")
        super()._open_explicit(events, field, m)

    def _close_current(self, events: list[dict[str, Any]]) -> None:
        name, body = self._current, self._body
        before = len(events)
        super()._close_current(events)
        closed = [event for event in events[before:] if event["type"] == "region_close"]
        for event in closed:
            if name == CALLS:
                _check_body(body, self._spec.fields[CALLS])
                values = event["value"] if isinstance(event["value"], list) else [event["value"]]
                self.found.calls += map(_call, values)
                self._call_ends = self._pos
            else:
                self.found.texts.setdefault(str(name), []).append(body)


def _mended(template: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a response template whose XML arguments keep the white space that they begin and end with.

    trl's take all of it off, so that code loses its indentation: the template writes one line break.
    """
    calls = template["fields"].get(CALLS, {})
    pattern = calls.get("content_args", {}).get("tag_pattern", "")
    if _STRIPPED not in pattern:
        return template
    content_args = {
        **calls["content_args"],
        "tag_pattern": pattern.replace(_STRIPPED, _KEPT),
        "value_parser": {"name": "text", "args": {"strip": False}},
    }
    fields = {**template["fields"], CALLS: {**calls, "content_args": content_args}}
    return {**template, "fields": fields}


def _call(value: Any) -> ToolCall:
    """Returns a call of the parser's. Raises `Unparsed` for one that lacks a part or has one too many."""
    function = value.get("function", value) if isinstance(value, dict) else value
    if not isinstance(function, dict):
        raise Unparsed(f"A tool call is no JSON object: {_shown(json.dumps(value))}.")
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        raise Unparsed("A tool call has no name.")
    if more := [str(key) for key in function if key not in _OF_A_CALL]:
        raise Unparsed(f"The call of {_shown(name)} has {_shown(more[0])}, which no call has.")
    arguments = function.get("arguments")
    try:
        found = arguments_object({} if arguments is None else arguments)
        json.dumps(found, allow_nan=False)
    except (RowInvalid, ValueError) as problem:
        raise Unparsed(f"The arguments of {_shown(name)} are no JSON object: {problem}.") from None
    return ToolCall(name.strip(), found)


def _check_body(body: str, field: Any) -> None:
    """Raises `Unparsed` for text of a call that belongs to none of its arguments."""
    if field.content != "xml-inline":
        return
    rest = regex.sub(field.content_args["tag_pattern"], "", body, flags=regex.DOTALL)
    rest = _BETWEEN_ARGUMENTS.sub("", rest)
    if rest:
        raise Unparsed(f"A tool call holds text that is no argument: {_shown(rest)}.")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def thought_fields(template: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the fields of a response template that hold thoughts."""
    return [template["fields"][name] for name in THOUGHTS if name in template["fields"]]
