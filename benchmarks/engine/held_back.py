"""Replies held back by a clock that other work on the machine does not move.

The clock is the CPU time of the sampler's thread, and the time in which it has nothing to do but to wait.
"""

from __future__ import annotations

import heapq
import itertools
import time

from workers.training.base.types import Completion
from workers.training.sampling.turns import GoesOn, Over, Turns


class HeldBack:
    """Is the turns of a call, each reply of which comes `seconds` after its turn has ended."""

    def __init__(self, turns: Turns, seconds: float) -> None:
        self._turns = turns
        self._seconds = seconds
        self._start = time.thread_time()
        self._waited = 0.0
        self._ended: dict[tuple[int, int], float] = {}
        self._numbers = itertools.count()
        self._held: list[tuple[float, int, GoesOn | Over]] = []

    @property
    def seconds(self) -> float:
        """Returns what the clock shows."""
        return time.thread_time() - self._start + self._waited

    @property
    def are_open(self) -> bool:
        """Says whether anything is still to come."""
        return self._turns.are_open or bool(self._held)

    def end(self, prompt: int, sample: int, written: Completion) -> None:
        """Takes a turn, and notes when it has ended."""
        self._ended[prompt, sample] = self.seconds
        self._turns.end(prompt, sample, written)

    def next(self, *, wait: bool) -> list[GoesOn | Over]:
        """Returns what is due; with `wait`, the clock goes on to the next that is."""
        while self._turns.are_open:
            for found in self._turns.next(wait=True):
                ended = self._ended[found.prompt, found.sample]
                due = ended + self._seconds if isinstance(found, GoesOn) else ended
                heapq.heappush(self._held, (due, next(self._numbers), found))
        if wait and self._held:
            self._waited += max(0.0, self._held[0][0] - self.seconds)
        due_now = []
        while self._held and self._held[0][0] <= self.seconds:
            due_now.append(heapq.heappop(self._held)[2])
        return due_now
