"""Criteria of an eval: graders that must pass, as they are kept, shown, and decided by."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from app.errors import BadRequest, Refusals
from app.evals.models import ItemStatus
from app.grading import service as grading
from app.grading.headers import masked
from app.storable import clean, storable
from graders import Grade, GraderSpec, parse_grader
from graders.judges.spec import LabelModelSpec
from graders.spec import StringCheckSpec, is_of_groups

PARAM = "testing_criteria"
SHOWN = 4000
"""Characters of a failure's message that are kept, its end, as in training."""
HALF = 0.5
"""What an answer passes from without a `pass_threshold`, where a grader's range is not known. It is a
convention, not measured."""


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


def result(criterion_id: str, spec: GraderSpec, grade: Grade) -> dict[str, Any]:
    """Returns what a criterion says of an answer, as it is told.

    An answer that does not parse has not passed; any other failure is an error of the criterion's.
    """
    failure = grade.failure
    if failure is not None and not failure.kind.is_completions_fault:
        return not_judged(criterion_id, spec, failure.kind.value, clean(failure.message[-SHOWN:]))
    passed = grade.value is not None and grade.value >= threshold(spec)
    said = {"reason": clean(grade.reason), "scores": storable(grade.parts)}
    if failure is not None:
        said["reason"] = clean(failure.message[-SHOWN:])
    kept = {name: value for name, value in said.items() if value}
    score = {"score": grade.reward or 0.0, "passed": passed}
    return {"name": criterion_id, "type": spec.type, **score, "sample": kept or None}


def not_judged(criterion_id: str, spec: GraderSpec, code: str, message: str) -> dict[str, Any]:
    """Returns the result of a criterion that could not judge an answer. Its score means nothing."""
    nothing = {"score": 0.0, "passed": False, "sample": None}
    return {"name": criterion_id, "type": spec.type, **nothing, "error": {"code": code, "message": message}}


def status_of(results: Sequence[Mapping[str, Any]]) -> ItemStatus:
    """Returns what an item comes to by what its criteria say: it passes if all of them pass."""
    if any("error" in one for one in results):
        return "error"
    return "pass" if all(one["passed"] for one in results) else "fail"


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
    if is_of_groups(parse_grader(raw)):
        at = f"{param}.type"
        message = (
            "A rank grader scores the answers to one prompt against each other, and an eval judges each"
            " answer by itself. Use a score_model or rubric grader as a criterion."
        )
        raise BadRequest(message, param=at, code="unsupported_grader")
    return {"id": f"{grader['name']}-{uuid.uuid4()}", **grader}
