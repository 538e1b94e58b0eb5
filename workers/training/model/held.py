"""Where a completion stands with its grammar, which holds the answer alone and waits for the thoughts.

While thoughts are open nothing is held, and no mask is computed. Where they may open, the answer may begin or
their opening mark; behind them the template's own white space may come first, and where a row has tools a
call in place of an answer (docs/decisions/0042-thoughts-by-the-template.md). All of it follows from prompt
and tokens, so the trainer finds again what the sampler did.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

from llguidance import LLMatcher

from workers.training.rendering.parts import PartsReader
from workers.training.rendering.thought_tokens import ThoughtTracker
from workers.training.rendering.token_paths import TokenPaths


class Then(Enum):
    """Says what follows a text that the template writes."""

    THOUGHTS = auto()
    ANSWER = auto()
    CALL = auto()


class Lead(NamedTuple):
    """Is a text of the template that may stand here, and what follows it.

    Attributes:
        starts: the places in it at which it may begin: white space may be left out.
    """

    paths: TokenPaths
    starts: frozenset[int]
    then: Then


class Thoughts:
    """Knows what a grammar waits for, in one model family. All completions share it."""

    def __init__(self, reader: PartsReader) -> None:
        """`reader` has marks, and its model may think."""
        assert reader.marks is not None, "there is nothing to wait for"
        assert reader.thoughts is not None, "there is nothing to wait for"
        marks, tokenizer = reader.marks, reader.thoughts.tokenizer
        self.reader = reader
        self.tokens = reader.thoughts
        self.gap_text = marks.gap
        self.gap = TokenPaths(tokenizer, marks.gap)
        self.has_header = bool(marks.header)
        self._opening = _lead(tokenizer, marks.lead, marks.opening, Then.THOUGHTS)
        self._header = _lead(tokenizer, marks.lead, marks.header, Then.ANSWER)
        self._bridge = _lead(tokenizer, "", marks.bridge, Then.ANSWER)
        self._call = _lead(tokenizer, "", reader.call_tag if reader.calls_tools else "", Then.CALL)

    def before(self, *, has_tools: bool) -> list[Lead]:
        """Returns what may stand where a completion begins, beside an answer."""
        calls = [self._call] if has_tools else []
        return [lead for lead in (self._opening, self._header, *calls) if lead.starts]

    def behind(self, *, has_tools: bool) -> list[Lead]:
        """Returns what may stand behind thoughts, beside an answer."""
        calls = [self._call] if has_tools else []
        return [lead for lead in (self._bridge, *calls) if lead.starts]


class Held:
    """Is the state of one completion.

    Attributes:
        matcher: the state of the grammar, in the answer.
    """

    def __init__(
        self, matcher: LLMatcher, thoughts: Thoughts | None, prompt: Sequence[int], *, has_tools: bool
    ) -> None:
        self.matcher = matcher
        self._thoughts = thoughts
        self._has_tools = has_tools
        self._tracker: ThoughtTracker | None = None
        """Follows thoughts that are open."""
        self._is_call = False
        self._leads: list[tuple[Lead, frozenset[int]]] = []
        """What the template may go on to write, and the places in it that were reached."""
        self._gap: int | None = None
        """How far the white space behind thoughts has been written, while it may come."""
        self._may_answer = True
        """The grammar allows what was written so far."""
        if thoughts is not None:
            self._begin(thoughts, prompt)

    def _begin(self, thoughts: Thoughts, prompt: Sequence[int]) -> None:
        start = thoughts.reader.start(prompt)
        if start == "thoughts":
            self._tracker = thoughts.tokens.follow("thoughts")
        elif start == "before":
            self._offer(thoughts.before(has_tools=self._has_tools), thoughts)
        else:
            self._offer(thoughts.behind(has_tools=self._has_tools), thoughts)

    def _offer(self, leads: Sequence[Lead], thoughts: Thoughts) -> None:
        self._leads = [(lead, lead.starts) for lead in leads]
        self._may_answer = not thoughts.has_header

    @property
    def is_free(self) -> bool:
        """Says whether every token may come."""
        return self._tracker is not None or self._is_call

    @property
    def is_answering(self) -> bool:
        """Says whether the grammar has a say about the next token."""
        return not self.is_free and self._may_answer

    @property
    def beside(self) -> set[int]:
        """Returns the tokens that may come whatever the grammar says."""
        found = {token for lead, places in self._leads for at in places for token in lead.paths.steps(at)}
        if self._gap is not None and self._thoughts is not None:
            found |= self._thoughts.gap.steps(self._gap).keys()
        return found

    def consume(self, token: int) -> None:
        """Goes on by a token that was allowed, and ends no completion."""
        if self._is_call:
            return
        if self._thoughts is None:
            self.matcher.consume_token(token)
        elif self._tracker is not None:
            self._think(token, self._tracker, self._thoughts)
        elif self._gap is not None and token in (steps := self._thoughts.gap.steps(self._gap)):
            self._gap = steps[token]
        else:
            self._go_on(token, self._thoughts)

    def _think(self, token: int, tracker: ThoughtTracker, thoughts: Thoughts) -> None:
        tracker.push(token)
        if tracker.phase != "behind":
            return
        self._tracker, behind = None, tracker.behind
        self._offer(thoughts.behind(has_tools=self._has_tools), thoughts)
        if thoughts.gap_text.startswith(behind):
            self._gap = len(behind)
        elif behind.strip():
            ids: list[int] = thoughts.tokens.tokenizer(behind, add_special_tokens=False)["input_ids"]
            for each in ids:
                self._go_on(each, thoughts)

    def _go_on(self, token: int, thoughts: Thoughts) -> None:
        """The token goes on with a text of the template, or with an answer, or with both."""
        self._gap = None
        if not self._leads:
            self.matcher.consume_token(token)
            return
        reached = [(lead, _reached(lead, places, token)) for lead, places in self._leads]
        self._leads = [(lead, places) for lead, places in reached if places]
        whole = [lead for lead, places in self._leads if lead.paths.length in places]
        if whole:
            self._leads = []
            self._follow(whole[0].then, thoughts)
        elif not self._leads and self._may_answer:
            self.matcher.consume_token(token)
        elif self._may_answer:
            self._may_answer = self.matcher.try_consume_tokens([token]) == 1

    def _follow(self, then: Then, thoughts: Thoughts) -> None:
        self.matcher.reset()
        self._may_answer = True
        if then is Then.THOUGHTS:
            self._tracker = thoughts.tokens.follow("thoughts")
        self._is_call = then is Then.CALL


def _lead(tokenizer: Any, space: str, text: str, then: Then) -> Lead:
    """Returns a text that white space may stand before; one without starts where there is no text."""
    starts = frozenset({0, len(space)}) if text else frozenset()
    return Lead(TokenPaths(tokenizer, space + text if text else ""), starts, then)


def _reached(lead: Lead, places: frozenset[int], token: int) -> frozenset[int]:
    steps = [lead.paths.steps(place) for place in places]
    return frozenset(found[token] for found in steps if token in found)
