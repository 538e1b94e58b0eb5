"""Follows thoughts token by token: where they open, where they close, and how long they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from workers.training.rendering.stop_strings import StopStrings
from workers.training.rendering.thought_marks import Start, ThoughtMarks

Phase = Literal["before", "thoughts", "behind"]


class ThoughtTokens:
    """Knows the marks of thoughts as tokens of one tokenizer. Threads may share it.

    Attributes:
        ending: the ids of what the template writes between thoughts and answer, which a budget forces.
    """

    def __init__(self, tokenizer: Any, marks: ThoughtMarks) -> None:
        self.marks = marks
        self.tokenizer = tokenizer
        known: dict[int, str] = {}
        self.closing = StopStrings(tokenizer, (marks.closing,), known)
        self.ending: tuple[int, ...] = tuple(tokenizer(marks.ending, add_special_tokens=False)["input_ids"])

    def follow(self, start: Start) -> ThoughtTracker:
        """Returns what follows one completion from where it starts."""
        return ThoughtTracker(self, start)

    def count(self, tokens: Sequence[int], start: Start) -> int:
        """Returns how many tokens of a completion are thoughts, their marks counted."""
        tracker = self.follow(start)
        for token in tokens:
            if tracker.phase == "behind":
                break
            tracker.push(token)
        return tracker.n_tokens


class ThoughtTracker:
    """Follows the thoughts of one completion.

    Attributes:
        phase: they may still open, are open, or cannot open any more.
        n_tokens: their tokens so far, their marks counted.
        n_inside: those behind the opening mark.
        behind: what the token that closed them wrote behind the mark.
    """

    def __init__(self, thoughts: ThoughtTokens, start: Start) -> None:
        self.phase: Phase = "behind" if start == "answer" else start
        self.n_tokens = self.n_inside = 0
        self.behind = ""
        self._thoughts = thoughts
        self._tokens: list[int] = []

    def push(self, token: int) -> None:
        """Takes note of the next token."""
        if self.phase == "behind":
            return
        self._tokens.append(token)
        if self.phase == "before":
            self._look_for_opening()
        else:
            self.n_tokens += 1
            self.n_inside += 1
            if self._thoughts.closing.is_complete(self._tokens):
                self._close()

    def would_close(self, token: int) -> bool:
        """Says whether this token would close thoughts that are open."""
        return self.phase == "thoughts" and self._thoughts.closing.is_complete([*self._tokens, token])

    def _look_for_opening(self) -> None:
        opening = self._thoughts.marks.opening
        text = self._thoughts.closing.decoded([self._tokens])[0].lstrip()
        if text.startswith(opening):
            self.phase, self.n_tokens = "thoughts", len(self._tokens)
            self._tokens = []
        elif not opening.startswith(text):
            self.phase = "behind"

    def _close(self) -> None:
        self.phase = "behind"
        text = self._thoughts.closing.decoded([self._tokens])[0]
        self.behind = text.partition(self._thoughts.marks.closing)[2]
        self._tokens = []
