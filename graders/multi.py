"""`multi`: several graders and a formula over their values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

from graders.formula import Formula
from graders.intervals import Interval, bounds_of
from graders.judges.helpers import HELPERS
from graders.types import (
    Base,
    Failure,
    FailureKind,
    Grade,
    GradeFailed,
    Grader,
    GroupGrader,
    Sample,
    add_usages,
)

SIDE_BY_SIDE = 4
"""Completions of a group that are graded at a time by graders that see one. Chosen, not measured: a group is
one task of its run, which has several of them under way."""
FORMULA = "calculate_output"
"""The part that fails where the formula has no value."""


@dataclass(frozen=True)
class Multi:
    """Grades by several graders and a formula over their values: a built `multi` grader.

    A sub-grader that fails through the completion's fault counts as 0 in the formula, and its failure stands
    in `part_failures`; training takes the least that the formula could have given (`Grade.least`). Any other
    failure is the failure of the whole: there is no honest number to give.

    Attributes:
        ranges: what the values of the sub-graders lie in; one that is not there may be anything.
        invalid_grade: the value where a sub-grader or the formula has none for this completion, whoever is at
            fault but a server that could not be asked; None for the rules above.
    """

    name: str
    graders: Mapping[str, Grader]
    formula: Formula
    ranges: Mapping[str, Interval] = field(default_factory=dict)
    type: str = "multi"
    invalid_grade: float | None = None

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        started = perf_counter()
        grades = {key: grader.grade(sample, item) for key, grader in self.graders.items()}
        return self._together(grades, perf_counter() - started)

    def _together(self, grades: Mapping[str, Grade], seconds: float) -> Grade:
        """Returns the grade that those of the sub-graders make."""
        parts = dict(_parts(grades))
        failures = {key: grade.failure for key, grade in grades.items() if grade.failure}
        value, failure = self._outcome(parts, failures)
        why = _reason(grades)
        if (invalid := self._why_invalid(failure, failures)) is not None:
            if failure is not None and not failures:
                failures = {FORMULA: failure}
            value, failure, why = self.invalid_grade, None, f"invalid_grade, because {invalid}"
        return Grade(
            value,
            failure,
            parts=parts,
            part_failures=failures,
            reason=why,
            seconds=seconds,
            usage=add_usages(grade.usage for grade in grades.values()),
            part_seconds={key: grade.seconds for key, grade in grades.items()},
            part_usage={key: grade.usage for key, grade in grades.items() if grade.usage},
            least=None if value is None else self._least(value, parts, failures),
        )

    def _outcome(
        self, parts: Mapping[str, float], failures: Mapping[str, Failure]
    ) -> tuple[float | None, Failure | None]:
        for key, failure in failures.items():
            if not failure.kind.is_completions_fault:
                return None, replace(failure, message=f"{key}: {failure.message}")
        try:
            return self.formula.evaluate(parts), None
        except GradeFailed as failed:
            return None, failed.failure

    def _why_invalid(self, whole: Failure | None, parts: Mapping[str, Failure]) -> str | None:
        """Returns what makes a grade count as `invalid_grade`; None where it does not."""
        found = [*([whole] if whole else []), *parts.values()]
        if self.invalid_grade is None or any(_is_an_outage(failure.kind) for failure in found):
            return None
        return found[0].message if found else None

    def _least(
        self, value: float, parts: Mapping[str, float], failures: Mapping[str, Failure]
    ) -> float | None:
        """Returns the least that could have come of parts that did not parse; None if that is the value.

        The other parts keep their values. Where no least is known the value stands.
        """
        if not failures or self.invalid_grade is not None:
            return None
        ranges = {
            key: self.ranges[key].with_zero() if key in failures else Interval(parts[key], parts[key])
            for key in self.graders
            if key not in failures or key in self.ranges
        }
        low = bounds_of(self.formula.tree, ranges).low
        return low if -math.inf < low < value else None


@dataclass(frozen=True)
class MultiOfGroups(Multi):
    """Grades a group by several graders, of which some grade the group as one and the others one by one."""

    def grade_group(
        self, samples: Sequence[Sample], item: Mapping[str, Any], base: Base | None = None
    ) -> list[Grade]:
        of_groups = {
            key: grader.grade_group(samples, item, base)
            for key, grader in self.graders.items()
            if isinstance(grader, GroupGrader)
        }
        others = {key: grader for key, grader in self.graders.items() if key not in of_groups}

        def of_others(sample: Sample) -> dict[str, Grade]:
            return {key: grader.grade(sample, item) for key, grader in others.items()}

        grades = []
        for i, of_one in enumerate(HELPERS.map(of_others, samples, SIDE_BY_SIDE)):
            parts = {key: of_groups[key][i] if key in of_groups else of_one[key] for key in self.graders}
            grades.append(self._together(parts, math.fsum(grade.seconds for grade in parts.values())))
        return grades


def _is_an_outage(kind: FailureKind) -> bool:
    """Tells whether nobody has looked at the completion, so that its grade is not invalid but missing."""
    return kind.is_servers_fault or kind is FailureKind.PYTHON_SERVER


def _parts(grades: Mapping[str, Grade]) -> list[tuple[str, float]]:
    """Returns the value of each sub-grader, and the sub-grader's own parts under its key."""
    found: list[tuple[str, float]] = []
    for key, grade in grades.items():
        if grade.value is not None:
            found.append((key, grade.value))
        elif grade.failure is not None and grade.failure.kind.is_completions_fault:
            found.append((key, 0.0))
        found += [(f"{key}.{name}", value) for name, value in grade.parts.items()]
    return found


def _reason(grades: Mapping[str, Grade]) -> str:
    """Returns what each sub-grader said, in one line."""
    said = {key: grade.failure.message if grade.failure else grade.reason for key, grade in grades.items()}
    return " | ".join(f"{key}: {text}" for key, text in said.items() if text)
