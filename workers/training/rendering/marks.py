"""Finds out what a chat template leaves out of a conversation, by putting marks in the place of its texts.

What a template does depends on which parts a message has, seldom on their words. So conversations of one
build have one answer, which is remembered.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from graders.thoughts import FAMILIES
from methods.messages import arguments_object
from workers.training.rendering.conversation import Conversation
from workers.training.rendering.template import Template, rendered_or_none

BUILDS = 4096
"""Builds of conversations that are remembered. A file has a few; chosen, not measured."""
SYSTEM, USER, ANSWER, RESULT = "system", "user", "assistant", "tool"
THOUGHT, CALL, ARGUMENTS, BESIDE_CALL, TOOLS = "thought", "call", "arguments", "beside_call", "tools"
_TAGS = sorted({tag for pair in FAMILIES for tag in pair}, key=len, reverse=True)
_OPENING = frozenset(opened.lower() for opened, _ in FAMILIES)
_TAG = re.compile("|".join(map(re.escape, _TAGS)), re.IGNORECASE)


class Lost(NamedTuple):
    """Is a piece of a conversation that its rendering does not show.

    Attributes:
        what: the role whose text it is, or one of the other words above.
        place: the message's; -1 of the tools.
    """

    what: str
    place: int


def lost(template: Template, talk: Conversation) -> tuple[Lost, ...]:
    """Returns what the template leaves out of a conversation. What it refuses shows when it is rendered."""
    marks = _Marks()
    marked = marks.conversation(talk)
    return _lost(template, _Marked(marked, tuple(marks.pieces)))


class _Marked(NamedTuple):
    """A conversation of marks: two are equal if every message has the same parts."""

    talk: Conversation
    pieces: tuple[Lost, ...]

    def __hash__(self) -> int:
        return hash((len(self.talk.messages), self.pieces))


@lru_cache(maxsize=BUILDS)
def _lost(template: Template, marked: _Marked) -> tuple[Lost, ...]:
    text = rendered_or_none(template, marked.talk)
    if text is None:
        return ()
    return tuple(piece for number, piece in enumerate(marked.pieces) if _mark(number) not in text)


def _mark(number: int) -> str:
    return f"xCherry{number}Markx"


class _Marks:
    """Puts a mark in place of each text of a conversation, and notes what it stands for."""

    def __init__(self) -> None:
        self.pieces: list[Lost] = []
        self._ids: dict[Any, str] = {}

    def conversation(self, talk: Conversation) -> Conversation:
        tools = [self._tool() for _ in talk.tools] if talk.tools is not None else None
        return Conversation([self._message(i, each) for i, each in enumerate(talk.messages)], tools)

    def _new(self, what: str, place: int) -> str:
        self.pieces.append(Lost(what, place))
        return _mark(len(self.pieces) - 1)

    def _tool(self) -> dict[str, Any]:
        schema = {"type": "object", "properties": {"x": {"type": "string", "description": "x"}}}
        function = {"name": self._new(TOOLS, -1), "description": "x", "parameters": schema}
        return {"type": "function", "function": function}

    def _message(self, place: int, message: dict[str, Any]) -> dict[str, Any]:
        role = message["role"]
        marked: dict[str, Any] = {"role": role}
        if thought := message.get("reasoning_content"):
            marked["reasoning_content"] = self._new(THOUGHT, place) if thought.strip() else ""
        calls = message.get("tool_calls")
        marked["content"] = self._text(place, message["content"], BESIDE_CALL if calls else role)
        if calls:
            marked["tool_calls"] = [self._call(place, call) for call in calls]
        if "tool_call_id" in message:
            marked["tool_call_id"] = self._id(message["tool_call_id"])
        if "name" in message:
            marked["name"] = "xCherryNamex"
        return marked

    def _call(self, place: int, call: dict[str, Any]) -> dict[str, Any]:
        given = call["function"]["arguments"]
        name, has_some = self._new(CALL, place), bool(arguments_object(given))
        arguments = {"x": self._new(ARGUMENTS, place)} if has_some else {}
        marked = {"type": call["type"], "function": {"name": name, "arguments": arguments}}
        return {"id": self._id(call["id"]), **marked} if "id" in call else marked

    def _id(self, given: Any) -> str:
        """Returns an id of nine letters and digits, which some templates ask for; the same for the same."""
        return self._ids.setdefault(str(given), f"cherry{len(self._ids):03}")

    def _text(self, place: int, text: str, what: str) -> str:
        """Returns the marks of a text; tags of thoughts stay, since templates look for them in answers."""
        if what not in (ANSWER, BESIDE_CALL):
            return self._new(what, place) if text.strip() else ""
        marked, start = "", 0
        for tag in (*_TAG.finditer(text), None):
            piece = text[start : tag.start() if tag else None]
            is_thought = tag is not None and tag[0].lower() not in _OPENING
            if piece.strip():
                marked += self._new(THOUGHT if is_thought else what, place)
            if tag is not None:
                marked, start = marked + tag[0], tag.end()
        return marked
