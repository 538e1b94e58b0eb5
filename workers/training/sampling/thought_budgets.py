"""Closes thoughts whose budget is used up: the template's closing mark is put in the place of what was drawn.

Tokens that are given so bear no loss, and count neither for the ratio nor for the length
(`Completion.given`). A completion that closes its own thoughts in time is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from workers.training.rendering.parts import PartsReader
from workers.training.rendering.thought_tokens import ThoughtTokens, ThoughtTracker


class ThoughtBudgets:
    """Follows the completions of one call of the sampler, by their numbers."""

    def __init__(self, reader: PartsReader, thoughts: ThoughtTokens, budget: int) -> None:
        self._reader = reader
        self._thoughts = thoughts
        self._budget = budget
        self._followed: dict[int, _Followed] = {}

    def begin(self, rows: Sequence[int], read: Sequence[int]) -> None:
        """Takes note that these completions go on from what was read."""
        start = self._reader.start(read)
        for row in rows:
            self._followed[row] = _Followed(self._thoughts.follow(start))

    def take(self, rows: Sequence[int], drawn: Sequence[int]) -> dict[int, int]:
        """Returns which tokens stand in the place of those that were drawn, by place; usually none."""
        given: dict[int, int] = {}
        for place, (row, token) in enumerate(zip(rows, drawn, strict=True)):
            followed = self._followed[row]
            if followed.pending or self._is_used_up(followed.tracker, token):
                given[place] = followed.force(self._thoughts.ending)
            else:
                followed.choose(token)
        return given

    def end(self, row: int) -> tuple[bool, ...]:
        """Returns which tokens of a completion that has ended were given; nothing where none was."""
        given = self._followed.pop(row).given
        return tuple(given) if any(given) else ()

    def _is_used_up(self, tracker: ThoughtTracker, token: int) -> bool:
        return (
            tracker.phase == "thoughts"
            and tracker.n_inside >= self._budget
            and not tracker.would_close(token)
        )


class _Followed:
    """Is one completion: its thoughts, what is still to be given, and what was given of its tokens."""

    def __init__(self, tracker: ThoughtTracker) -> None:
        self.tracker = tracker
        self.pending: list[int] = []
        self.given: list[bool] = []

    def force(self, ending: Sequence[int]) -> int:
        """Goes on by the next token of the ending, and returns it."""
        if not self.pending:
            self.pending = list(ending)
        token = self.pending.pop(0)
        self.tracker.push(token)
        self.given.append(True)
        return token

    def choose(self, token: int) -> None:
        """Goes on by a token that was drawn."""
        self.tracker.push(token)
        self.given.append(False)


def thought_budgets(reader: PartsReader | None, budget: int | None) -> ThoughtBudgets | None:
    """Returns what holds completions to a budget; None without one, or where a family has no thoughts."""
    if reader is None or reader.thoughts is None or budget is None:
        return None
    return ThoughtBudgets(reader, reader.thoughts, budget)
