"""What the engine has done so far, in numbers that anybody may read."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Counts:
    """Holds sums since the engine began, but for `running` and `waiting`, which are of this moment."""

    steps: int = 0
    step_seconds: float = 0.0
    sampled_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    running: int = 0
    """Completions under way."""
    waiting: int = 0
    """Requests that wait for their first sample to begin."""


class Rate:
    """Knows how many requests leave the queue in a second, by those of the last while."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._seconds = 0.0
        """Between two of them, on average."""

    def note(self) -> None:
        """Takes note that a request left the queue."""
        now = time.monotonic()
        if self._last is not None:
            gap = now - self._last
            self._seconds += (gap - self._seconds) / NOTED
        self._last = now

    def seconds_for(self, n: int) -> int:
        """Returns in how many whole seconds n more will have left, within what a client can wait."""
        return max(1, min(MOST_SECONDS, round(n * self._seconds)))


NOTED = 32
"""Requests over which the rate is averaged, about. Chosen, not measured."""
MOST_SECONDS = 60
"""The longest that a client is told to wait. Chosen: later it may as well ask again."""
