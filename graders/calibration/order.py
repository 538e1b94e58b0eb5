"""Measures how far the order of a rubric's criteria moves a judge: the same criteria, first and last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from graders.calibration.asking import Asked, Asker
from graders.calibration.cases import Case
from graders.calibration.numbers import Estimate, mean
from graders.grading import OfAnswer
from graders.judges.criteria import Criterion
from graders.judges.rubric import RubricGrader
from graders.judges.rubric_spec import RubricSpec
from graders.services import Judge
from graders.types import Grade, GradeFailed


def criteria_bias(asker: Asker, spec: RubricSpec, judge: Judge, cases: Sequence[Case]) -> Estimate | None:
    """Returns by how much likelier a criterion is met where it comes first than where it comes last.

    Each case is graded twice, with its criteria in their order and the other way round; the two criteria at the
    ends change places. None where no case has two criteria.
    """
    rubric = RubricGrader.build(spec, judge)
    moved: list[float] = []
    for case in cases:
        criteria = _criteria_of(rubric, case.item)
        if len(criteria) < 2:
            continue
        forth, back = (
            asker.grade(
                OfAnswer(rubric.with_criteria(order), spec.thoughts), [Asked(case.answer, case.item)]
            )[0]
            for order in (criteria, criteria[::-1])
        )
        moved += _moved(forth, back, criteria)
    return mean(moved)


def _criteria_of(rubric: RubricGrader, item: Mapping[str, Any]) -> list[Criterion]:
    """Returns the criteria for a row, named by their places; none where it has no rubric that can be read."""
    try:
        found = rubric.criteria_of(item)
    except GradeFailed:
        return []
    return [replace(one, name=f"criterion {place}", tags=()) for place, one in enumerate(found)]


def _moved(forth: Grade | None, back: Grade | None, criteria: Sequence[Criterion]) -> list[float]:
    """Returns, for the criteria at the ends, their verdict in first place less that in last place."""
    if forth is None or back is None:
        return []
    first, last = criteria[0].name, criteria[-1].name
    pairs = (
        (forth.parts.get(first), back.parts.get(first)),
        (back.parts.get(last), forth.parts.get(last)),
    )
    return [early - late for early, late in pairs if early is not None and late is not None]
