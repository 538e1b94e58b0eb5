"""Grades `code_tests`: the share of tests that a completion's Python passes. An extension of ours.

Each test runs the completion anew in a process of the sandbox. Results are compared on this side where a test
says what it expects; a test that computes runs in a process of its own, on what the completion replied. Tests
that hand the completion functions or objects of theirs, or look into it, must run beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Any

from graders.code.attempt import Attempt, Remembered, TestFailed, beside_of
from graders.code.cases import Case, read_cases
from graders.code.tests_spec import CodeTestsSpec
from graders.grading import Score, grade_by
from graders.services import Sandbox, Services, required_sandbox
from graders.template import Template
from graders.types import Grade, Sample

MAX_CODE = 262_144
"""Most characters of a completion's code."""

_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n", re.MULTILINE)
_PYTHON = ("", "python", "py", "python3", "Python")


@dataclass(frozen=True)
class CodeTests:
    """Grades by the share of tests passed: a built `code_tests` grader."""

    name: str
    spec: CodeTestsSpec
    input: Template
    tests: Template | Sequence[Template]
    before: Template
    function: Template | None
    sandbox: Sandbox
    remembered: Remembered
    type: str = "code_tests"

    @classmethod
    def build(cls, spec: CodeTestsSpec, services: Services) -> CodeTests:
        """Builds the grader that a spec describes.

        Raises `GraderInvalid` where there is no sandbox that holds.
        """
        sandbox = required_sandbox(services, "code_tests")
        tests = spec.tests
        return cls(
            spec.name,
            spec,
            Template.parse(spec.input),
            Template.parse(tests) if isinstance(tests, str) else [Template.parse(one) for one in tests],
            Template.parse(spec.before),
            Template.parse(spec.function) if spec.function is not None else None,
            sandbox,
            Remembered(),
        )

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return grade_by(self._score, sample, item)

    def _score(self, sample: Sample, item: Mapping[str, Any]) -> Score:
        listed = self._cases(sample, item)
        before = self.before.render(sample, item)
        code = code_of(self.input.render(sample, item))
        if not code.strip():
            return Score(0.0, {"passed": 0.0}, "there is no code in the answer")
        if len(code) > MAX_CODE:
            return Score(0.0, {"passed": 0.0}, f"the code is longer than {MAX_CODE:,} characters")
        return self._scored(listed, before + code)

    def _cases(self, sample: Sample, item: Mapping[str, Any]) -> list[Case]:
        function = self.function.render(sample, item) if self.function else None
        if isinstance(self.tests, Template):
            raw = self.tests.value(sample, item)
        else:
            raw = [one.render(sample, item) for one in self.tests]
        return read_cases(raw, function or None, self.spec.rel_tolerance)

    def beside(self, item: Mapping[str, Any], deadline: float) -> list[str]:
        """Returns, of the tests of a row that can only run beside the completion, what they are and why.

        From `deadline` on, by `time.monotonic()`, no more are looked at.

        Raises `GradeFailed` for tests that cannot be read.
        """
        nothing = Sample("")
        before = self.before.render(nothing, item)
        found = []
        for case in self._cases(nothing, item):
            if case.judged is None or monotonic() > deadline:
                continue
            if why := beside_of(self.sandbox, self.remembered, case.judged, before):
                found.append(f"{case.shown}: {why}")
        return found

    def _scored(self, listed: Sequence[Case], code: str) -> Score:
        n_passed, note = self._run(listed, code)
        share = n_passed / len(listed)
        value = float(share == 1) if self.spec.scoring == "all" else share
        if share < self.spec.min_share:
            value = 0.0
        reason = f"{n_passed} of {len(listed)} tests passed" + (f"; {note}" if note else "")
        return Score(value, {"passed": share}, reason)

    def _run(self, listed: Sequence[Case], code: str) -> tuple[int, str]:
        """Returns how many tests passed, and what the first that failed said."""
        started = perf_counter()
        n_passed, note = 0, ""
        for at, case in enumerate(listed):
            left = self.spec.total_time_limit - (perf_counter() - started)
            if left <= 0:
                return n_passed, note or f"test {at + 1} and later ones were not reached in time"
            failure = self._fails(case, code, min(left, self.spec.time_limit))
            n_passed += failure is None
            if failure is not None and not note:
                note = f"the first that failed, {at + 1} ({case.shown}), {failure}"
            if failure is not None and self.spec.scoring == "all":
                break
        return n_passed, note

    def _fails(self, case: Case, code: str, seconds: float) -> str | None:
        """Returns why a test is not passed; None if it is.

        Raises `GradeFailed` if the sandbox could not run it.
        """
        try:
            case.check(Attempt(self.sandbox, self.remembered, code, seconds, self.spec.memory_mb * 2**20))
        except TestFailed as failed:
            return str(failed)
        return None


def code_of(completion: str) -> str:
    """Returns the last fenced block of Python, or of no stated language; else the whole completion.

    A block that is not closed goes to the end. Fences are whole lines, so that code may hold backticks.
    """
    found = None
    position = 0
    while opened := _FENCE.search(completion, position):
        closed = re.compile(r"^[ \t]*```[ \t]*$", re.MULTILINE).search(completion, opened.end())
        end = closed.start() if closed else len(completion)
        if opened[1] in _PYTHON:
            found = completion[opened.end() : end]
        position = closed.end() if closed else len(completion)
    return completion if found is None else found
