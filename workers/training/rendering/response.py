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

from graders import strict_json
from methods.messages import THOUGHTS, RowInvalid, arguments_object
from workers.training.base.parts import ToolCall
from workers.training.rendering.argument_types import with_types
from workers.training.rendering.python_calls import PythonTags, python_calls, python_tags_of

ANSWER, CALLS = "content", "tool_calls"
_BETWEEN_ARGUMENTS = regex.compile(r"(?:[\s,]|</\w+>)*")
_FINAL = "<|channel|>final<|message|>"
_TO = (
    r"(?:to=functions\.(?P<name>[^\s<]+)\s*<\|channel\|>(?:commentary|analysis)"
    r"|<\|channel\|>(?:commentary|analysis)\s+to=functions\.(?P<name>[^\s<]+))"
    r"\s*(?:<\|constrain\|>)?\s*(?:json)?\s*<\|message\|>"
)
_VALUE = regex.compile(r"\\s\*(\(\?P<value>\.\*\?\))\\s\*")
"""Where a pattern of arguments drops the white space around a value."""
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
        template = with_whole_arguments(with_every_header(template))
        self._python = python_tags_of(template, call_tag)
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
        if self._python is not None and self._python.opening in text:
            return self._read_python(text, self._python)
        is_bare = self._without_calls.implicit is not None and not self._call_tag
        may_call = bool(tools) if is_bare else self._call_tag in text
        read_by = self._with_calls if may_call else self._without_calls
        return self._read(text, read_by, tools)

    def _read_python(self, text: str, tags: PythonTags) -> Response:
        """Reads lists of calls that are written as Python, and what stands around them."""
        before, opened, rest = text.partition(tags.opening)
        found = self._read(before, self._without_calls, None)
        if not opened:
            return found
        body, closed, after = rest.partition(tags.closing)
        if not closed:
            raise Unparsed(f"The completion ends in the middle of a tool call: {_shown(body)}.")
        try:
            found.calls += [
                _call({"name": each.name, "arguments": each.arguments}) for each in python_calls(body)
            ]
        except (ValueError, TypeError) as problem:
            raise Unparsed(f"A tool call cannot be read: {problem}: {_shown(body)}.") from None
        behind = self._read_python(after, tags)
        for name, pieces in behind.texts.items():
            found.texts.setdefault(name, []).extend(pieces)
        return Response(found.texts, found.calls + behind.calls, found.lost + behind.lost)

    def _read(
        self, text: str, template: ResponseTemplate, tools: Sequence[Mapping[str, Any]] | None
    ) -> Response:
        parser = _Watched(template, self._call_tag, with_types(tools or ()))
        try:
            parser.feed(text)
            if parser.is_calling:
                raise Unparsed("A tool call cannot be read: the completion ends in the middle of it.")
            parser.finalize()
        except RecursionError:
            raise Unparsed("A tool call cannot be read: it is nested too deeply.") from None
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


def with_every_header(template: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns gpt-oss's response template for all spellings that its format has of a call's header.

    That of trl knows one (findings/trl-gpt-oss-calls-vanish.sh). What is said to nobody on the channel of
    calls is shown to the user, as the format has it.
    """
    calls, answer = (template["fields"].get(name) or {} for name in (CALLS, ANSWER))
    if not calls.get("open_pattern", "").startswith(r"to=functions\.") or answer.get("open") != _FINAL:
        return template
    said = {key: value for key, value in answer.items() if key != "open"}
    said |= {"open_pattern": r"<\|channel\|>(?:final|commentary)\s*<\|message\|>"}
    said |= {"close_pattern": r"<\|(?:return|end)\|>\s*"}
    return {**template, "fields": {**template["fields"], ANSWER: said, CALLS: {**calls, "open_pattern": _TO}}}


def with_whole_arguments(template: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a response template that leaves the white space of arguments which are written as text.

    Those of trl cut it off (findings/trl-xml-arguments-lose-indentation.sh). One newline at each end is the
    template's where it looks for white space there.
    """
    calls = template["fields"].get(CALLS) or {}
    given = calls.get("content_args") or {}
    reader = given.get("value_parser") or {}
    if calls.get("content") != "xml-inline" or reader.get("name") != "text":
        return template
    whole = {"name": "text", "args": {**reader.get("args", {}), "strip": False}}
    pattern = _VALUE.sub(r"\\n?\1\\n?", given["tag_pattern"])
    changed = {**calls, "content_args": {**given, "tag_pattern": pattern, "value_parser": whole}}
    return {**template, "fields": {**template["fields"], CALLS: changed}}


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
    _check_strict(name, "The name of a tool call is no JSON text")
    arguments = function.get("arguments")
    try:
        found = arguments_object({} if arguments is None else arguments)
    except RowInvalid as problem:
        raise Unparsed(f"The arguments of {_shown(name)} are no JSON object: {problem}.") from None
    _check_strict(found, f"The arguments of {_shown(name)} are no JSON object")
    return ToolCall(name.strip(), found)


def _check_strict(value: Any, fault: str) -> None:
    """Raises `Unparsed` for a value that tools, templates, UTF-8 or the database could not take."""
    try:
        strict_json.loads(json.dumps(value))
    except (ValueError, RecursionError) as problem:
        raise Unparsed(f"{fault}: {problem}.") from None


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
