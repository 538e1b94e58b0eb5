"""Asks a grader for many grades at once, within a budget of time and calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple

from graders.calibration.meter import Meter
from graders.grading import grade_safely
from graders.types import Grade, Grader, Sample

LOST_IN_A_ROW = 8
"""Grades in a row that failed because nobody answered: no more are asked for. Chosen, not measured: of a
judge that fails half of the time, eight in a row are one in 256."""

Tell = Callable[[int, int], None]
"""Hears how many grades are there, of how many that are planned."""


@dataclass(frozen=True)
class Bounds:
    """Limits what a measurement asks for.

    Attributes:
        seconds: after this nothing more is begun.
        calls: most calls of judges; None where only the time counts.
        concurrency: grades under way at once.
        repeats: times that a case is graded to see how often the grader agrees with itself.
        repeated, padded, swapped, tricked: most cases for each measure.
    """

    seconds: float = 300.0
    calls: int | None = 500
    concurrency: int = 8
    repeats: int = 3
    repeated: int = 12
    padded: int = 12
    swapped: int = 12
    tricked: int = 4


class Asked(NamedTuple):
    """Names one grade to ask for: a text, and the row that it answers."""

    answer: str
    item: Mapping[str, Any]


@dataclass
class Asker:
    """Asks for grades until the budget is spent, and keeps them.

    Attributes:
        grades: all grades so far.
        planned: how many are asked for in all, as far as is known.
        left_out: how many were not asked for, because the budget was spent or nobody answered.
    """

    meter: Meter | None
    bounds: Bounds
    tell: Tell = lambda _done, _planned: None
    grades: list[Grade] = field(default_factory=list)
    planned: int = 0
    left_out: int = 0
    started: float = field(default_factory=monotonic)
    _lost: int = 0

    def grade(self, grader: Grader, asked: Sequence[Asked]) -> list[Grade | None]:
        """Returns a grade for each; None for those that the budget does not reach."""
        self.planned = max(self.planned, len(self.grades) + len(asked))
        with ThreadPoolExecutor(self.bounds.concurrency) as pool:
            return list(pool.map(lambda one: self._one(grader, one), asked))

    @property
    def is_over(self) -> bool:
        """Tells whether nothing more is asked for."""
        calls = self.bounds.calls
        is_spent = self.meter is not None and calls is not None and self.meter.calls >= calls
        is_late = monotonic() - self.started > self.bounds.seconds
        return is_spent or is_late or self._lost >= LOST_IN_A_ROW

    @property
    def is_lost(self) -> bool:
        """Tells whether nobody answers."""
        return self._lost >= LOST_IN_A_ROW

    def _one(self, grader: Grader, asked: Asked) -> Grade | None:
        if self.is_over:
            self.left_out += 1
            return None
        grade = grade_safely(grader, Sample(asked.answer), asked.item)
        is_lost = grade.failure is not None and grade.failure.kind.is_servers_fault
        self._lost = self._lost + 1 if is_lost else 0
        self.grades.append(grade)
        self.tell(len(self.grades), self.planned)
        return grade
