"""Tries a grader on rows, through the service that grades for `graders/run`, and says what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from app.auth import Caller
from app.errors import ApiError
from app.grading import service as grading
from app.settings import get_settings
from graders import Grade, GraderInvalid, GraderSpec, Sample, parse_grader
from graders.preflight.references import reference_of
from graders.spec import is_of_groups, known_range

NEAR = 1e-9


class Tried(NamedTuple):
    """What one answer got.

    Attributes:
        reward: None where there is none; then `faults` say why.
        parts: of each named part, its value.
        top: the most that the grader gives, where that is known.
    """

    reward: float | None = None
    parts: Mapping[str, float] = {}
    reason: str = ""
    faults: Sequence[str] = ()
    top: float | None = None
    seconds: float = 0.0

    @property
    def is_full(self) -> bool:
        """Tells whether it got the most that there is."""
        return self.reward is not None and self.top is not None and self.reward >= self.top - NEAR


def suggested(grader: Any, item: Mapping[str, Any]) -> str:
    """Returns the answer that a grader should like best, as its own texts tell; "" where they do not."""
    try:
        found = reference_of(parse_grader(grader), item)
    except GraderInvalid:
        return ""
    return found.text if found else ""


async def tried(caller: Caller, grader: Any, sample: str, item: Mapping[str, Any]) -> Tried:
    """Grades one answer. A grader that compares answers is given an empty one beside it."""
    settings = get_settings()
    samples = [Sample(output_text=sample)]
    try:
        if is_of_groups(parse_grader(grader)):
            samples.append(Sample(output_text=""))
        spec, grades = await grading.run(
            caller,
            grader,
            samples,
            item,
            seconds=settings.grader_run_limit.total_seconds(),
            per_key=settings.grader_runs_per_key,
        )
    except GraderInvalid as fault:
        return Tried(faults=[one.message for one in fault.all])
    except ApiError as refusal:
        return Tried(faults=[one.message for one in refusal.all])
    return _told(spec, grades[0])


def _told(spec: GraderSpec, grade: Grade) -> Tried:
    found = known_range(spec)
    faults = [f"{name}: {failure.message}" for name, failure in grade.part_failures.items()]
    if grade.failure is not None:
        faults.insert(0, grade.failure.message)
    top = found.high if found is not None else None
    return Tried(grade.value, grade.parts, grade.reason, list(dict.fromkeys(faults)), top, grade.seconds)
