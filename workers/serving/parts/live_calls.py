"""Tool calls as they are written, for completions that a grammar holds: nothing else than calls can come."""

from __future__ import annotations

from typing import Literal

from app.ids import random_id
from workers.serving.parts.call_syntax import CallSyntax
from workers.serving.parts.calls_told import CALL_ID, CALL_ID_LENGTH, Told

Place = Literal["lead", "name", "arguments", "behind"]
QUOTE, ESCAPE, OPENING, CLOSING = b'"'[0], b"\\"[0], b"{[", b"}]"


class LiveCalls:
    """Reads the calls of one completion."""

    def __init__(self, syntax: CallSyntax) -> None:
        """`syntax` writes arguments as JSON objects."""
        assert syntax.between_parts is not None, "there is no object to follow"
        self._lead = syntax.lead.strip().encode()
        self._between_parts = syntax.between_parts.encode()
        self._between_calls = (syntax.between_calls or "").encode()
        self._place: Place = "lead"
        self._text = b""
        self._object = _Object()
        self.number = -1
        """Of the call that was begun last; -1 before the first."""

    def feed(self, text: bytes) -> list[Told]:
        """Takes so much more text; returns what it tells of calls."""
        self._text += text
        told: list[Told] = []
        while self._step(told):
            pass
        return told

    def _step(self, told: list[Told]) -> bool:
        """Goes on to the next part of a call; says whether that has come."""
        match self._place:
            case "lead":
                return self._pass(self._lead, "name")
            case "name":
                return self._name(told)
            case "arguments":
                return self._arguments(told)
            case _:
                return bool(self._between_calls) and self._pass(self._between_calls, "name")

    def _pass(self, mark: bytes, then: Place) -> bool:
        text = self._text.lstrip() if then == "name" and self._place == "lead" else self._text
        if not text.startswith(mark):
            return False
        self._text, self._place = text[len(mark) :], then
        return True

    def _name(self, told: list[Told]) -> bool:
        name, found, rest = self._text.partition(self._between_parts)
        if not found:
            return False
        self.number += 1
        told.append(Told(self.number, "", random_id(CALL_ID, CALL_ID_LENGTH), name.decode()))
        self._text, self._place, self._object = rest, "arguments", _Object()
        return True

    def _arguments(self, told: list[Told]) -> bool:
        size = self._object.follow(self._text)
        if size:
            told.append(Told(self.number, self._text[:size].decode()))
            self._text = self._text[size:]
        if self._object.is_over:
            self._place = "behind"
        return self._object.is_over


class _Object:
    """Finds the end of a JSON object, piece by piece."""

    def __init__(self) -> None:
        self.is_over = False
        self._depth = 0
        self._is_text = self._is_escaped = False

    def follow(self, text: bytes) -> int:
        """Returns how much of a text belongs to the object."""
        for place, byte in enumerate(text):
            self._take(byte)
            if self.is_over:
                return place + 1
        return len(text)

    def _take(self, byte: int) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif self._is_text:
            self._is_escaped, self._is_text = byte == ESCAPE, byte != QUOTE
        elif byte == QUOTE:
            self._is_text = True
        elif byte in OPENING:
            self._depth += 1
        elif byte in CLOSING:
            self._depth -= 1
            self.is_over = self._depth == 0
