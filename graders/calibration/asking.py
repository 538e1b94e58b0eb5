"""Asks a grader for many grades at once, within a budget of time and calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Any, NamedTuple

from graders.calibration.cases import Case
from graders.calibration.meter import Meter
from graders.grading import grade_group_safely
from graders.types import Grade, Grader, GroupGrader, Sample

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
        concurrency: gradings under way at once.
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


FEW = Bounds(seconds=30.0, calls=40, repeated=4, padded=4, swapped=4, tricked=1)
"""Bounds for rows that nobody has answered: two rows with two answers each, each graded three times and once
with neutral words, and ten ways to ask for a score take 26 calls. Chosen so that a trial is not dear."""


class Asked(NamedTuple):
    """Names what to grade: one answer to a row, or several that are graded as a group."""

    grader: Grader
    samples: tuple[Sample, ...]
    item: Mapping[str, Any]
    calls: int = 1
    """How many calls of judges that takes as a rule."""


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
    _under_way: int = 0
    _lock: Lock = field(default_factory=Lock)

    def grade(self, asked: Sequence[Asked]) -> list[list[Grade] | None]:
        """Returns the grades of each; None for those that the budget does not reach."""
        with ThreadPoolExecutor(self.bounds.concurrency) as pool:
            return list(pool.map(self._one, asked))

    @property
    def is_lost(self) -> bool:
        """Tells whether nobody answers."""
        return self._lost >= LOST_IN_A_ROW

    def _one(self, asked: Asked) -> list[Grade] | None:
        if not self._begins(asked.calls):
            with self._lock:
                self.left_out += len(asked.samples)
            return None
        grades = grade_group_safely(asked.grader, asked.samples, asked.item)
        is_lost = all(grade.failure is not None and grade.failure.kind.is_servers_fault for grade in grades)
        with self._lock:
            self._under_way -= asked.calls
            self._lost = self._lost + 1 if is_lost else 0
            self.grades += grades
            done = len(self.grades)
        self.tell(done, max(self.planned, done))
        return grades

    def _begins(self, calls: int) -> bool:
        """Tells whether a grading of so many calls may begin, and counts them as under way.

        The first one may, whatever it takes.
        """
        with self._lock:
            most = self.bounds.calls
            made = 0 if self.meter is None else self.meter.calls + self._under_way
            is_spent = self.meter is not None and most is not None and made > 0 and made + calls > most
            if is_spent or self.is_lost or monotonic() - self.started > self.bounds.seconds:
                return False
            self._under_way += calls
            return True


class Bench:
    """Grades cases with one grader: as they are, or changed. A grader of groups sees all answers to a row."""

    def __init__(
        self,
        asker: Asker,
        grader: Grader,
        cases: Sequence[Case],
        calls_of: Callable[[int], int] = lambda _answers: 1,
    ) -> None:
        """Puts cases before a grader; `calls_of` tells how many calls a grading of so many answers takes."""
        self.asker = asker
        self._calls_of = calls_of
        self.grader = grader
        self.cases = cases
        self._groups = (
            groups_of(cases) if isinstance(grader, GroupGrader) else [[i] for i in range(len(cases))]
        )
        self._group_of = {place: group for group in self._groups for place in group}

    def as_they_are(self, places: Iterable[int], times: int = 1) -> list[list[Grade]]:
        """Returns the grades of the cases at some places, each graded so often, as far as the budget goes."""
        wanted = list(places)
        groups = list({id(group): group for group in (self._group_of[place] for place in wanted)}.values())
        asked = [self._asked(group, {}) for group in groups for _ in range(times)]
        found: dict[int, list[Grade]] = {}
        for group, grades in zip(
            (group for group in groups for _ in range(times)), self.asker.grade(asked), strict=True
        ):
            for place, grade in zip(group, grades or (), strict=bool(grades)):
                found.setdefault(place, []).append(grade)
        return [found.get(place, []) for place in wanted]

    def changed(self, texts: Sequence[tuple[int, str]]) -> list[Grade | None]:
        """Returns the grade of each case with another text in its answer's place; None beyond the budget."""
        asked = [self._asked(self._group_of[place], {place: text}) for place, text in texts]
        return [
            None if grades is None else grades[self._group_of[place].index(place)]
            for (place, _), grades in zip(texts, self.asker.grade(asked), strict=True)
        ]

    def _asked(self, group: Sequence[int], changes: Mapping[int, str]) -> Asked:
        samples = tuple(Sample(changes.get(place, self.cases[place].answer)) for place in group)
        return Asked(self.grader, samples, self.cases[group[0]].item, self._calls_of(len(samples)))


def groups_of(cases: Sequence[Case]) -> list[list[int]]:
    """Returns the places of cases by their row: those of one group answer the same row."""
    found: dict[str, list[int]] = {}
    for place, case in enumerate(cases):
        found.setdefault(json.dumps(case.item, sort_keys=True, default=str), []).append(place)
    return list(found.values())
