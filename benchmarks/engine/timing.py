"""Clocks and the arithmetic of ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, NamedTuple

import torch

PHASES = ("generate", "reference", "train", "rest")
"""Of a step; "train" is forward and backward, "rest" is everything else."""

ClockName = Literal["cpu", "wall"]


class Seconds(NamedTuple):
    """CPU time of the whole process (all threads), and wall time."""

    cpu: float = 0.0
    wall: float = 0.0

    def __add__(self, other: object) -> Seconds:
        assert isinstance(other, Seconds)
        return Seconds(self.cpu + other.cpu, self.wall + other.wall)

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.cpu - other.cpu, self.wall - other.wall)


def process_clock() -> Seconds:
    return Seconds(time.process_time(), time.perf_counter())


class Timer:
    """Time by phase. Phases nest; time counts for the innermost alone, so they add up to the whole."""

    def __init__(self, device: str, clock: Callable[[], Seconds] = process_clock) -> None:
        self._clock = clock
        self._on_gpu = device == "cuda"
        self._open: list[str] = []
        self._since = Seconds()
        self.spent: dict[str, Seconds] = {}

    def enter(self, name: str) -> None:
        """Begin a phase inside the open one."""
        self._lap()
        self._open.append(name)

    def leave(self) -> None:
        """End the innermost phase."""
        self._lap()
        self._open.pop()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, whose calls are a phase."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return function(*args, **kwargs)

        return call

    def take(self) -> dict[str, Seconds]:
        """What was spent since the last call, by phase."""
        spent, self.spent = self.spent, {}
        return spent

    def _lap(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()
        now = self._clock()
        if self._open:
            name = self._open[-1]
            self.spent[name] = self.spent.get(name, Seconds()) + (now - self._since)
        self._since = now


@dataclass(frozen=True)
class StepCost:
    """One step of one side.

    Attributes:
        spent: seconds by phase.
        lengths: tokens of each sampled completion, with its end token.
        prompt_tokens: of the step's different prompts.
        reward: mean over the completions.
    """

    spent: dict[str, Seconds]
    lengths: tuple[int, ...]
    prompt_tokens: int
    reward: float

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    def seconds(self, clock: ClockName, phase: str | None = None) -> float:
        """Of one phase, or of the whole step."""
        names = self.spent if phase is None else [phase]
        spent = [self.spent.get(name, Seconds()) for name in names]
        return sum(seconds.cpu if clock == "cpu" else seconds.wall for seconds in spent)

    def per_token(self, clock: ClockName, phase: str | None = None) -> float:
        return self.seconds(clock, phase) / self.tokens


class Ratio(NamedTuple):
    """How many times as long stock takes, over the pairs of a run."""

    median: float
    lowest: float
    highest: float


def ratio_of(
    stock: Sequence[StepCost], ours: Sequence[StepCost], clock: ClockName, phase: str | None = None
) -> Ratio | None:
    """Stock's time per sampled token over ours, pair by pair; None where neither side spends any."""
    found = [
        s.per_token(clock, phase) / o.per_token(clock, phase)
        for s, o in zip(stock, ours, strict=True)
        if o.per_token(clock, phase) > 0
    ]
    return Ratio(statistics.median(found), min(found), max(found)) if found else None


def milliseconds_per_token(steps: Sequence[StepCost], clock: ClockName, phase: str | None = None) -> float:
    """Median over steps."""
    return 1e3 * statistics.median(step.per_token(clock, phase) for step in steps)
