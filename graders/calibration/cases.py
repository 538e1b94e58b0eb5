"""Declares what a grader is measured on: answers, with people's scores where there are any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graders.preflight.probes import plausible
from graders.preflight.references import ANSWER_KEYS, reference_of
from graders.spec import GraderSpec

NO_ANSWER = "I do not know."
"""What is wrong as an answer to almost anything."""
WRONG_SHARE = 1 / 3
"""The share of the labelled cases, those that people scored lowest, that count as wrong. Chosen, not
measured."""


@dataclass(frozen=True)
class Case:
    """Holds one answer to one row.

    Attributes:
        line: what people know the case by, from 1.
        item: the row, as graders see it.
        answer: the text to grade.
        label: the score that a person gave it, on the person's scale; None where nobody did.
        is_wrong: whether the answer is known to be wrong.
    """

    line: int
    item: Mapping[str, Any]
    answer: str
    label: float | None = None
    is_wrong: bool = False


def with_wrong_ones_marked(cases: Sequence[Case]) -> list[Case]:
    """Returns labelled cases with those marked as wrong that people scored lowest, below their own best."""
    labels = sorted(case.label for case in cases if case.label is not None)
    if not labels or labels[0] == labels[-1]:
        return list(cases)
    bar = min(labels[int(len(labels) * WRONG_SHARE)], (labels[0] + labels[-1]) / 2)
    return [_marked(case, case.label is not None and case.label <= bar) for case in cases]


def cases_of_rows(
    spec: GraderSpec, rows: Sequence[Mapping[str, Any]], lines: Sequence[int], most_rows: int
) -> list[Case]:
    """Returns cases made of rows that nobody has answered: an answer that may be right to each, and one that
    is not. The rows are spread evenly over all."""
    n = min(most_rows, len(rows))
    found = []
    for place in (i * len(rows) // n for i in range(n)):
        item, line = rows[place], lines[place]
        found += [Case(line, item, likely_answer(spec, item)), Case(line, item, NO_ANSWER, is_wrong=True)]
    return found


def likely_answer(spec: GraderSpec, item: Mapping[str, Any]) -> str:
    """Returns the right answer of a row, as far as the grader's templates or the row's keys tell; else some
    text that the row holds.
    """
    if (reference := reference_of(spec, item)) is not None:
        return reference.text
    for key in ANSWER_KEYS:
        if isinstance(value := item.get(key), str) and value.strip():
            return value
    return next(iter([probe.text for probe in plausible(item)][1:]))


def spread(places: Sequence[int], most: int) -> list[int]:
    """Returns at most so many of some places, spread evenly over them."""
    n = min(most, len(places))
    return [places[i * len(places) // n] for i in range(n)]


def _marked(case: Case, is_wrong: bool) -> Case:
    return Case(case.line, case.item, case.answer, case.label, is_wrong)
