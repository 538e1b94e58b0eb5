"""Where a completion stands with its grammar, which holds the answer alone and waits for the thoughts.

While thoughts are open nothing is held, and no mask is computed. Before them, in a family whose prompt does
not open them, the answer may begin or their opening mark; behind them the template's own white space may come
first (docs/decisions/0042-thoughts-by-the-template.md). All of it follows from prompt and tokens, so the
trainer finds again what the sampler did.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from llguidance import LLMatcher

from workers.training.rendering.parts import PartsReader
from workers.training.rendering.stop_strings import StopStrings
from workers.training.rendering.thought_marks import Start
from workers.training.rendering.thought_tokens import ThoughtTracker
from workers.training.rendering.token_paths import TokenPaths

NO_TOKENS: frozenset[int] = frozenset()


class Thoughts:
    """Knows what a grammar waits for, in one model family. All completions share it."""

    def __init__(self, reader: PartsReader) -> None:
        """`reader` has marks, and its template shows thoughts."""
        assert reader.marks is not None, "there is nothing to wait for"
        assert reader.thoughts is not None, "there is nothing to wait for"
        marks, tokenizer = reader.marks, reader.thoughts.tokenizer
        self.reader = reader
        self.tokens = reader.thoughts
        self.opening = TokenPaths(tokenizer, marks.lead + marks.opening)
        self.starts = frozenset({0, len(marks.lead)})
        self.gap_text = marks.gap
        self.gap = TokenPaths(tokenizer, marks.gap)
        self.header = StopStrings(tokenizer, (marks.header,)) if marks.header else None

    def start(self, prompt: Sequence[int]) -> Start:
        """Returns where a completion of a prompt starts."""
        return self.reader.start(prompt)


class Held:
    """Is the state of one completion.

    Attributes:
        matcher: the state of the grammar, in the answer.
    """

    def __init__(self, matcher: LLMatcher, thoughts: Thoughts | None, prompt: Sequence[int]) -> None:
        self.matcher = matcher
        self._thoughts = thoughts
        self._header: list[int] | None = None
        """What was written before the header of the answer, while that is waited for."""
        self._tracker: ThoughtTracker | None = None
        """Follows thoughts that are open."""
        self._openings: Collection[int] = NO_TOKENS
        """How far the opening mark may have been written, while it may come."""
        self._gap: int | None = None
        """How far the white space behind thoughts has been written, while it may come."""
        self._may_answer = True
        """The grammar allows what was written so far."""
        if thoughts is not None:
            self._begin(thoughts, prompt)

    def _begin(self, thoughts: Thoughts, prompt: Sequence[int]) -> None:
        start = thoughts.start(prompt)
        if thoughts.header is not None:
            self._header = []
        elif start == "thoughts":
            self._tracker = thoughts.tokens.follow("thoughts")
        elif start == "before":
            self._openings = thoughts.starts

    @property
    def is_free(self) -> bool:
        """Says whether every token may come."""
        return self._tracker is not None or self._header is not None

    @property
    def is_answering(self) -> bool:
        """Says whether the grammar has a say about the next token."""
        return not self.is_free and self._may_answer

    @property
    def beside(self) -> set[int]:
        """Returns the tokens that may come whatever the grammar says."""
        if self._thoughts is None:
            return set()
        found = {token for place in self._openings for token in self._thoughts.opening.steps(place)}
        return found if self._gap is None else found | self._thoughts.gap.steps(self._gap).keys()

    def consume(self, token: int) -> None:
        """Goes on by a token that was allowed, and ends no completion."""
        if self._thoughts is None:
            self.matcher.consume_token(token)
        elif self._header is not None:
            self._look_for_header(token, self._thoughts)
        elif self._tracker is not None:
            self._think(token, self._tracker, self._thoughts)
        elif self._openings:
            self._open(token, self._thoughts)
        else:
            self._answer(token, self._thoughts)

    def _look_for_header(self, token: int, thoughts: Thoughts) -> None:
        assert self._header is not None, "it is waited for"
        assert thoughts.header is not None, "it is waited for"
        self._header.append(token)
        if thoughts.header.is_complete(self._header):
            self._header = None

    def _think(self, token: int, tracker: ThoughtTracker, thoughts: Thoughts) -> None:
        tracker.push(token)
        if tracker.phase != "behind":
            return
        self._tracker, behind = None, tracker.behind
        if thoughts.gap_text.startswith(behind):
            self._gap = len(behind)
        elif behind.strip():
            ids = thoughts.tokens.tokenizer(behind, add_special_tokens=False)["input_ids"]
            self.matcher.try_consume_tokens(ids)

    def _open(self, token: int, thoughts: Thoughts) -> None:
        """The token goes on with the opening mark, or with an answer, or with both."""
        steps = [thoughts.opening.steps(place) for place in self._openings]
        self._openings = {reached[token] for reached in steps if token in reached}
        if thoughts.opening.length in self._openings:
            self._openings, self._may_answer = NO_TOKENS, True
            self.matcher.reset()
            self._tracker = thoughts.tokens.follow("thoughts")
        elif not self._openings:
            self.matcher.consume_token(token)
        elif self._may_answer:
            self._may_answer = self.matcher.try_consume_tokens([token]) == 1

    def _answer(self, token: int, thoughts: Thoughts) -> None:
        reached = None if self._gap is None else thoughts.gap.steps(self._gap).get(token)
        self._gap = reached
        if reached is None:
            self.matcher.consume_token(token)
