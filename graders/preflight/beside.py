"""Finds rows whose tests can only run in one process with the answer, which could then tamper with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graders.code.tests_grader import CodeTests
from graders.grading import OfAnswer
from graders.multi import Multi
from graders.rlvr.grader import Rlvr
from graders.types import GradeFailed, Grader, Sample


def tests_beside(grader: Grader, item: Mapping[str, Any], deadline: float) -> list[str]:
    """Returns which tests of a row must run beside the answer, and why; none if they cannot be read.

    From `deadline` on, by `time.monotonic()`, no more are looked at.
    """
    try:
        return [
            one for tests, labelled in _code_tests(grader, item) for one in tests.beside(labelled, deadline)
        ]
    except GradeFailed:
        return []


def _code_tests(grader: Grader, item: Mapping[str, Any]) -> Iterator[tuple[CodeTests, Mapping[str, Any]]]:
    """Yields the `code_tests` graders in a grader, each with the row as it sees it."""
    if isinstance(grader, CodeTests):
        yield grader, item
    elif isinstance(grader, OfAnswer):
        yield from _code_tests(grader.grader, item)
    elif isinstance(grader, Multi):
        for part in grader.graders.values():
            yield from _code_tests(part, item)
    elif isinstance(grader, Rlvr) and isinstance(grader.shared.code, CodeTests):
        for label in grader.code_labels(Sample(""), item):
            yield grader.shared.code, {"label": label}
