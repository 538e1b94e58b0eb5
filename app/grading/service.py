"""Holds the rules of graders on the wire: what may be used, and how one is tried on a completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.auth import Caller
from app.errors import ApiError, BadRequest, Refusals
from app.grading.headers import sealed
from app.grading.services import grader_services
from app.grading.turns import Turns
from app.settings import get_settings
from graders import (
    Failure,
    FailureKind,
    Grade,
    Grader,
    GraderInvalid,
    GraderSpec,
    Sample,
    build_grader,
    dump_grader,
    parse_grader,
)
from graders.grading import grade_group_safely
from graders.spec import is_of_groups

ALONE = (
    "A rank grader scores the answers to one prompt against each other: give it several, as a list in"
    " 'model_sample'."
)
TURNS = Turns()
"""The grader runs of this process."""


def checked(raw: Any, param: str, project_id: str) -> tuple[GraderSpec, Grader]:
    """Reads a grader and builds it for a project, as jobs and grader runs alike do.

    Raises `BadRequest` whose param lies below `param`, also for a kind that this server cannot run.
    """
    try:
        spec = parse_grader(raw)
        return spec, build_grader(spec, grader_services(project_id))
    except GraderInvalid as fault:
        raise _refused(fault, param) from None


def _refused(fault: GraderInvalid, param: str) -> ApiError:
    """Returns all that is wrong with the grader at `param` of a request."""
    refusals = Refusals()
    for one in fault.all:
        below = f"{param}.{one.param}" if one.param else param
        message = one.message.replace(f"'{one.param}'", f"'{below}'") if one.param else one.message
        refusals.all.append(BadRequest(message, param=below, code=one.code))
    return refusals.together()


def as_understood(raw: Any, param: str, project_id: str) -> dict[str, Any]:
    """Returns the grader with what was left out filled in. Raises `BadRequest`."""
    spec, _ = checked(raw, param, project_id)
    return dump_grader(spec)


def as_stored(raw: Any, param: str, project_id: str) -> dict[str, Any]:
    """Returns the same as a job keeps it, without secrets. Raises `BadRequest`."""
    understood = as_understood(raw, param, project_id)
    try:
        return sealed(understood, project_id, get_settings())
    except GraderInvalid as fault:
        raise BadRequest(fault.message, param=f"{param}.{fault.param}", code=fault.code) from None


async def run(
    caller: Caller,
    raw: Any,
    samples: Sequence[Sample],
    item: Mapping[str, Any],
    *,
    seconds: float,
    per_key: int,
) -> tuple[GraderSpec, list[Grade]]:
    """Grades completions of one row on a thread of its own. A grading that takes too long is a failed one.

    Raises `BadRequest` for a grader that is invalid, or compares completions where there is one, or
    `TooManyRequests`.
    """

    def work() -> tuple[GraderSpec, list[Grade]]:
        spec, grader = checked(raw, "grader", caller.project_id)
        if len(samples) == 1 and is_of_groups(spec):
            raise BadRequest(ALONE, param="model_sample", code="invalid_value")
        return spec, grade_group_safely(grader, samples, item)

    try:
        return await TURNS.run(caller.key_id, work, seconds=seconds, per_key=per_key)
    except TimeoutError:
        message = f"The grading took longer than {seconds:.0f} seconds and was given up."
        failed = Grade(None, Failure(FailureKind.OTHER, message), seconds=seconds)
        return parse_grader(raw), [failed] * len(samples)
