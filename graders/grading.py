"""Turns a score, or the reason why there is none, into a `Grade`."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from types import MappingProxyType
from typing import Any, NamedTuple

from graders.thoughts import Thoughts, answer_of
from graders.types import Base, Failure, FailureKind, Grade, GradeFailed, Grader, GroupGrader, Sample, Usage


class Score(NamedTuple):
    """Holds what a grader found: a value in grader units, the parts it is made of, and the tokens it cost."""

    value: float
    parts: Mapping[str, float] = MappingProxyType({})
    reason: str = ""
    usage: Usage = MappingProxyType({})


def grade_by(
    score: Callable[[Sample, Mapping[str, Any]], Score],
    sample: Sample,
    item: Mapping[str, Any],
    *,
    lowest: float = 0.0,
) -> Grade:
    """Runs and times a scoring function; a `GradeFailed` that it raises becomes the grade's failure.

    `lowest` is the least value that the function gives.
    """
    started = perf_counter()
    try:
        found = score(sample, item)
    except GradeFailed as failed:
        least = lowest if failed.failure.kind.is_completions_fault and lowest < 0 else None
        seconds = perf_counter() - started
        return Grade(None, failed.failure, seconds=seconds, usage=failed.usage, least=least)
    return Grade(
        found.value,
        parts=dict(found.parts) if found.parts else {},
        reason=found.reason,
        seconds=perf_counter() - started,
        usage=dict(found.usage) if found.usage else {},
    )


@dataclass(frozen=True)
class OfAnswer:
    """Grades the answer of a completion: `grader` sees it without its thoughts.

    Where the model's own template has told thoughts and answer apart, tags in the answer are looked for only
    if it found no thoughts; with the setting "none" the grader sees all of the text.
    """

    grader: Grader
    thoughts: Thoughts

    @property
    def name(self) -> str:
        return self.grader.name

    @property
    def type(self) -> str:
        return self.grader.type

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return self.grader.grade(self._answered(sample), item)

    def _answered(self, sample: Sample) -> Sample:
        if self.thoughts == "none":
            if sample.raw_text is None:
                return sample
            return replace(sample, output_text=sample.raw_text, output_thoughts=None)
        if self.thoughts == "auto" and sample.output_thoughts is not None:
            return sample
        text = sample.output_text
        answer = answer_of(text, self.thoughts)
        return sample if answer is text else replace(sample, output_text=answer)


@dataclass(frozen=True)
class OfAnswers(OfAnswer):
    """Grades the answers of a group of completions, each without its thoughts."""

    grader: GroupGrader

    def grade_group(
        self, samples: Sequence[Sample], item: Mapping[str, Any], base: Base | None = None
    ) -> list[Grade]:
        answers = [self._answered(sample) for sample in samples]
        of_base = None if base is None else [sample and self._answered(sample) for sample in base]
        return self.grader.grade_group(answers, item, of_base)


def of_answer(grader: Grader, thoughts: Thoughts) -> OfAnswer:
    """Returns a grader that sees answers, of groups where `grader` grades groups."""
    return OfAnswers(grader, thoughts) if isinstance(grader, GroupGrader) else OfAnswer(grader, thoughts)


def grade_safely(grader: Grader, sample: Sample, item: Mapping[str, Any]) -> Grade:
    """Returns the grade, whatever the grader does: one that raises, or gives no finite number, has failed."""
    started = perf_counter()
    try:
        grade = grader.grade(sample, item)
    except Exception:  # a grader must not raise; one that does must not end what it is part of
        return _raised(perf_counter() - started)
    return _finite(grade)


def grade_group_safely(
    grader: Grader,
    samples: Sequence[Sample],
    item: Mapping[str, Any],
    base: Base | None = None,
) -> list[Grade]:
    """Returns the grades of one prompt's completions, whatever the grader does.

    A grader that grades no groups grades them one by one, and takes no note of `base`.
    """
    if not isinstance(grader, GroupGrader):
        return [grade_safely(grader, sample, item) for sample in samples]
    started = perf_counter()
    try:
        grades = list(grader.grade_group(samples, item, base))
    except Exception:
        raised = _raised(perf_counter() - started)
        return [raised, *[replace(raised, seconds=0.0)] * (len(samples) - 1)] if samples else []
    if len(grades) != len(samples):
        message = f"The grader gave {len(grades)} grades to {len(samples)} completions."
        return [Grade(None, Failure(FailureKind.OTHER, message))] * len(samples)
    return [_finite(grade) for grade in grades]


def _raised(seconds: float) -> Grade:
    """Returns the grade where a grader raises what is handled now."""
    failure = Failure(FailureKind.OTHER, traceback.format_exc(limit=-3))
    return Grade(None, failure, seconds=seconds)


def _finite(grade: Grade) -> Grade:
    """Returns the grade, as a failure if its value is no finite number."""
    if grade.value is None or math.isfinite(grade.value):
        return grade
    failure = Failure(FailureKind.OTHER, "The reward is not a finite number.")
    return replace(grade, value=None, failure=failure, least=None)
