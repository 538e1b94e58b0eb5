"""A completion's thoughts, answer and calls as its tokens come: each is told once it is certain what it is.

What may be the beginning of a mark waits, and so does a tool call until it is whole. Calls that cannot be
read are told as they stand, behind the answer: nothing that was written gets lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from app.ids import random_id
from workers.serving.completion_text import CompletionText, Finish, Piece, text_of
from workers.serving.parts.calls_told import CALL_ID, CALL_ID_LENGTH, Told
from workers.serving.parts.live_calls import LiveCalls
from workers.serving.parts.unsettled import SPACE, Unsettled
from workers.serving.requests import Token
from workers.training.base.parts import Parts, ToolCall

if TYPE_CHECKING:
    from workers.training.rendering.parts import PartsReader
    from workers.training.rendering.thought_marks import Start

OBJECT = b"{"
"""What begins a call in families that write one as a JSON object, and nothing before it."""
Phase = Literal["before", "thoughts", "gap", "answer", "call"]
"""What comes next: thoughts or what follows them; thoughts; what a template writes before an answer; the
answer; tool calls, up to the end."""


class PartsText:
    """Reads one completion of a model whose thoughts or calls are understood."""

    def __init__(
        self,
        reader: PartsReader,
        text: CompletionText,
        prompt: Sequence[int],
        tools: Sequence[Mapping[str, Any]],
        call_tag: str,
        stops: Sequence[str],
        live: LiveCalls | None = None,
    ) -> None:
        """`text` reads all of it, without stop strings; calls are looked for where there are `tools`.

        They begin with `call_tag`, where that is known. `live` reads those that a grammar holds.
        """
        self.finish: Finish | None = None
        self._reader = reader
        self._text = text
        self._prompt = prompt
        self._tools = tools
        self._live = live
        self._tag = call_tag.encode() if tools else b""
        self._stops = tuple(stop.encode() for stop in stops)
        # a model may open thoughts again that its prompt has closed
        start: Start = "thoughts" if reader.start(prompt) == "thoughts" else "before"
        self._phase: Phase = "gap" if reader.marks is None else start
        self._has_thoughts = False
        self._has_told_thoughts = False
        self._tokens: list[int] = []
        self._unsettled = Unsettled()
        self._answer: list[Piece] = []
        self._thoughts: list[Piece] = []
        self._calls: list[Told] = []
        self._told = ""
        """The answer so far."""
        self._read_live = 0
        """How much of the unsettled text the reader of live calls has had."""
        self._tracker = reader.thoughts.follow(start) if reader.thoughts is not None else None

    @property
    def tokens(self) -> int:
        """Returns how many tokens were sampled."""
        return self._text.tokens

    @property
    def thought_tokens(self) -> int:
        """Returns how many of them are thoughts, with their marks."""
        return self._tracker.n_tokens if self._tracker is not None else 0

    @property
    def has_ready(self) -> bool:
        """Whether there is something to take."""
        return bool(self._answer or self._thoughts or self._calls)

    def push(self, token: Token) -> bool:
        """Takes the next token; says whether the completion has ended. What comes after that is left out."""
        if self.finish is not None:
            return True
        is_over = self._text.push(token)
        self._tokens.append(token.token)
        if self._tracker is not None:
            self._tracker.push(token.token)
        self._unsettled.add(self._text.take())
        while self.finish is None and self._advance():
            pass
        if is_over and self.finish is None:
            self._end("length" if self._text.finish == "length" else "stop")
        return self.finish is not None

    def take(self) -> list[Piece]:
        """Returns the pieces of the answer that are certain and were not taken yet."""
        taken, self._answer = self._answer, []
        return taken

    def take_thoughts(self) -> str:
        """Returns the text of the thoughts that is certain and was not taken yet."""
        taken, self._thoughts = self._thoughts, []
        return text_of(taken)

    def take_calls(self) -> list[Told]:
        """Returns the calls that are certain and were not taken yet."""
        taken, self._calls = self._calls, []
        return taken

    def _advance(self) -> bool:
        """Settles what it can of the text; says whether what comes next is another thing than before."""
        match self._phase:
            case "before":
                return self._look_for_thoughts()
            case "thoughts":
                return self._think()
            case "gap":
                return self._look_for_answer()
            case "answer":
                return self._say()
            case _:
                return self._call()

    def _look_for_thoughts(self) -> bool:
        assert self._reader.marks is not None
        opening, text = self._reader.marks.opening.encode(), self._unsettled.text.lstrip(SPACE)
        if text.startswith(opening):
            self._unsettled.strip_left()
            self._unsettled.take(len(opening))
            self._phase = "thoughts"
        elif not opening.startswith(text):
            self._phase = "gap"
        return self._phase != "before"

    def _think(self) -> bool:
        assert self._reader.marks is not None
        self._has_thoughts = True
        closing = self._reader.marks.closing.encode()
        end = self._unsettled.text.find(closing)
        if end < 0:
            self._tell_thoughts(self._unsettled.certain([closing], holds_blank=True))
            return False
        self._tell_thoughts(len(self._unsettled.text[:end].rstrip(SPACE)))
        self._unsettled.strip_left()
        self._unsettled.take(len(closing))
        self._phase = "gap"
        return True

    def _tell_thoughts(self, size: int) -> None:
        if not self._has_told_thoughts:
            text = self._unsettled.text[:size]
            blank = len(text) - len(text.lstrip(SPACE))
            self._unsettled.take(blank)
            size -= blank
        self._thoughts += self._unsettled.take(size)
        self._has_told_thoughts = self._has_told_thoughts or size > 0

    def _look_for_answer(self) -> bool:
        """Passes over what a template writes before an answer, and tells an answer from a call."""
        text = self._unsettled.text.lstrip(SPACE)
        marks = self._reader.marks
        for header in (marks.bridge, marks.header) if marks is not None and marks.header else ():
            if text.startswith(header.encode()):
                self._unsettled.strip_left()
                self._unsettled.take(len(header.encode()))
                self._phase = "answer"
                return True
            if header.encode().startswith(text):
                return False
        if not text:
            return False
        if self._has_thoughts:
            self._unsettled.strip_left()
        is_header_missing = marks is not None and bool(marks.header)
        is_call = is_header_missing or (self._tag[:1] == OBJECT and text.startswith(OBJECT))
        self._phase = "call" if is_call else "answer"
        return True

    def _say(self) -> bool:
        places = [at for stop in self._stops if (at := self._unsettled.text.find(stop)) >= 0]
        stop = min(places, default=None)
        call = self._unsettled.text.find(self._tag) if self._tag else -1
        if call >= 0 and (stop is None or call < stop):
            self._tell(len(self._unsettled.text[:call].rstrip(SPACE)))
            self._phase = "call"
            return True
        if stop is not None:
            self._tell(stop)
            self.finish = "stop"
            return False
        marks = (*self._stops, self._tag) if self._tag else self._stops
        is_stripped = self._has_thoughts or bool(self._tools)
        self._tell(self._unsettled.certain(marks, holds_blank=is_stripped))
        return False

    def _call(self) -> bool:
        """Tells calls as they come, where they can only be right. Their text stays until one is told."""
        if self._live is None:
            return False
        unread = self._unsettled.text[self._read_live :]
        self._read_live += len(unread)
        self._calls += self._live.feed(unread)
        return False

    def _tell(self, size: int) -> None:
        pieces = self._unsettled.take(size)
        self._answer += pieces
        self._told += text_of(pieces)

    def _end(self, finish: Literal["stop", "length"]) -> None:
        self.finish = finish
        if self._phase == "thoughts":
            self._tell_thoughts(len(self._unsettled.text.rstrip(SPACE)))
            return
        if self._phase == "call" and (self._has_live_calls() or self._read_calls()):
            if finish == "stop":
                self.finish = "tool_calls"
            return
        if self._has_thoughts:
            self._unsettled.strip_right()
            if not self._told:
                self._unsettled.strip_left()
        self._tell(len(self._unsettled.text))

    def _has_live_calls(self) -> bool:
        return self._live is not None and self._live.number >= 0

    def _read_calls(self) -> bool:
        """Tells the calls, and an answer behind them. Returns False where they cannot be read."""
        parts: Parts = self._reader.read(self._prompt, self._tokens, self._tools)
        if not parts.calls:
            return False
        self._calls = [piece for number, call in enumerate(parts.calls) for piece in _told(number, call)]
        rest = parts.answer.removeprefix(self._told).encode()
        place = self._unsettled.text.rfind(rest)
        if rest and place >= 0:
            self._unsettled.take(place)
            self._tell(len(rest))
        return True


def _told(number: int, call: ToolCall) -> list[Told]:
    form = call.chat_form(random_id(CALL_ID, CALL_ID_LENGTH))
    function = form["function"]
    return [Told(number, "", form["id"], function["name"]), Told(number, function["arguments"])]
