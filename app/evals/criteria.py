"""Criteria of an eval: graders that must pass, as they are kept, shown, and decided by."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from app.errors import BadRequest, Refusals
from app.grading import service as grading
from app.grading.headers import masked
from graders import Grade, GraderSpec
from graders.judges.spec import LabelModelSpec
from graders.spec import StringCheckSpec

PARAM = "testing_criteria"
HALF = 0.5
"""What an answer passes from without a `pass_threshold`, where a grader's range is not known. It is a
convention, not measured."""


class Decision(NamedTuple):
    """What a criterion says of an answer."""

    score: float
    passed: bool


def checked(raw: Sequence[Any], project_id: str) -> list[dict[str, Any]]:
    """Returns criteria as an eval keeps them. Raises `BadRequest` with all that is wrong."""
    refusals, kept = Refusals(), []
    for number, criterion in enumerate(raw):
        with refusals:
            kept.append(_kept(criterion, f"{PARAM}[{number}]", project_id))
    refusals.raise_any()
    return kept


def shown(criterion: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a criterion as it is told: without the secrets of its headers."""
    return masked(criterion)


def grader_of(criterion: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the grader that a criterion is."""
    return {name: value for name, value in criterion.items() if name != "id"}


def decide(spec: GraderSpec, grade: Grade) -> Decision:
    """Returns what a grade comes to. One that failed by the answer's own fault has not passed."""
    if grade.value is None:
        return Decision(grade.reward or 0.0, passed=False)
    return Decision(grade.value, grade.value >= threshold(spec))


def threshold(spec: GraderSpec) -> float:
    """Returns the score from which an answer passes: what the grader says, or the middle of its range."""
    if spec.pass_threshold is not None:
        return spec.pass_threshold
    if isinstance(spec, StringCheckSpec | LabelModelSpec):
        return 1.0
    known = spec.reward_range
    return (known.low + known.high) / 2 if known.is_bounded else HALF


def _kept(raw: Any, param: str, project_id: str) -> dict[str, Any]:
    if isinstance(raw, Mapping):
        raw = grader_of(raw)  # of an eval that was read and is made anew
        if raw.get("type") == "text_similarity" and raw.get("pass_threshold") is None:
            at = f"{param}.pass_threshold"
            message = f"Missing required parameter: '{at}'."
            raise BadRequest(message, param=at, code="missing_required_parameter")
    grader = grading.as_stored(raw, param, project_id)
    return {"id": f"{grader['name']}-{uuid.uuid4()}", **grader}
