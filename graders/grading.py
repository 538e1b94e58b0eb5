"""From a score, or the reason why there is none, to a `Grade`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from types import MappingProxyType
from typing import Any, NamedTuple

from graders.types import Grade, GradeFailed, Sample, Usage


class Score(NamedTuple):
    """What a grader found: a value in grader units, the parts it is made of, and the tokens it cost."""

    value: float
    parts: Mapping[str, float] = MappingProxyType({})
    reason: str = ""
    usage: Usage = MappingProxyType({})


def grade_by(
    score: Callable[[Sample, Mapping[str, Any]], Score], sample: Sample, item: Mapping[str, Any]
) -> Grade:
    """Run a scoring function that may raise `GradeFailed`, and time it."""
    started = perf_counter()
    try:
        found = score(sample, item)
    except GradeFailed as failed:
        return Grade(None, failed.failure, seconds=perf_counter() - started, usage=failed.usage)
    return Grade(
        found.value,
        parts=dict(found.parts),
        reason=found.reason,
        seconds=perf_counter() - started,
        usage=dict(found.usage),
    )
