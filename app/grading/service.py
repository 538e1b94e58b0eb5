"""Rules of graders on the wire: what may be used, and how one is tried on an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.errors import BadRequest
from app.grading.services import grader_services
from app.grading.turns import Turns
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
from graders.grading import grade_safely

TURNS = Turns()
"""Grader runs of this process."""


def checked(raw: Any, param: str) -> tuple[GraderSpec, Grader]:
    """Read a grader and build it, as jobs and grader runs alike do.

    Raises `BadRequest` whose param lies below `param`, also for a kind that this server cannot run.
    """
    try:
        spec = parse_grader(raw)
        return spec, build_grader(spec, grader_services())
    except GraderInvalid as fault:
        below = f"{param}.{fault.param}" if fault.param else param
        message = fault.message.replace(f"'{fault.param}'", f"'{below}'") if fault.param else fault.message
        raise BadRequest(message, param=below, code=fault.code) from None


def as_stored(raw: Any, param: str) -> dict[str, Any]:
    """The grader as it was understood and as a job keeps it. Raises `BadRequest`."""
    spec, _ = checked(raw, param)
    return dump_grader(spec)


async def run(
    key_id: str, raw: Any, sample: Sample, item: Mapping[str, Any], *, seconds: float, per_key: int
) -> tuple[GraderSpec, Grade]:
    """Grade one answer on a thread of its own. A grading that takes too long is a failed one.

    Raises `BadRequest` for a grader that is invalid, or `TooManyRequests`.
    """

    def work() -> tuple[GraderSpec, Grade]:
        spec, grader = checked(raw, "grader")
        return spec, grade_safely(grader, sample, item)

    try:
        return await TURNS.run(key_id, work, seconds=seconds, per_key=per_key)
    except TimeoutError:
        message = f"The grading took longer than {seconds:.0f} seconds and was given up."
        return parse_grader(raw), Grade(None, Failure(FailureKind.OTHER, message), seconds=seconds)
