"""Grades `python`: a number from the user's own `grade(sample, item)`, run in the sandbox."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graders.code.spec import PythonSpec
from graders.grading import Score, grade_by
from graders.services import Limits, Outcome, Program, Sandbox
from graders.template import sample_variables
from graders.types import FailureKind, Grade, GradeFailed, GraderInvalid, Sample

LIMITS = Limits(wall_seconds=120, cpu_seconds=120, memory_bytes=2 * 2**30, output_bytes=4096)
"""OpenAI's; the sandbox's settings may lower them."""

_COMPILE = "def check(source):\n    compile(source, '<grader>', 'exec')\n"


@dataclass(frozen=True)
class PythonGrader:
    """Grades by the user's own code: a built `python` grader.

    What `grade` prints is the reason of the grade.
    """

    name: str
    source: str
    sandbox: Sandbox
    type: str = "python"

    @classmethod
    def build(cls, spec: PythonSpec, sandbox: Sandbox) -> PythonGrader:
        """Builds the grader that a spec describes.

        Raises `GraderInvalid` for a source that does not compile.
        """
        outcome = sandbox.run(Program(_COMPILE, "check", [spec.source]))
        if outcome.fault == "raised":
            problem = outcome.message.rpartition("\n")[2]
            raise GraderInvalid(
                f"Invalid value for 'source': it does not compile: {problem}.", param="source"
            )
        return cls(spec.name, spec.source, sandbox)

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return grade_by(self._score, sample, item)

    def _score(self, sample: Sample, item: Mapping[str, Any]) -> Score:
        program = Program(
            self.source,
            "grade",
            [sample_variables(sample), item],
            seed=zlib.crc32(sample.output_text.encode("utf-8", "replace")),
            limits=LIMITS,
        )
        outcome = self.sandbox.run(program)
        return Score(_number(outcome), reason=outcome.stdout.strip())


def _number(outcome: Outcome) -> float:
    """Returns the number that the program gave.

    Raises `GradeFailed`: the sandbox could not run it, or the grader is at fault.
    """
    if outcome.fault == "server":
        raise GradeFailed(FailureKind.PYTHON_SERVER, outcome.message)
    if outcome.fault is not None:
        raise GradeFailed(FailureKind.PYTHON_RUNTIME, outcome.message)
    value = outcome.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:80] + "..."
        raise GradeFailed(FailureKind.PYTHON_RUNTIME, f"grade returned {shown}, which is no number.")
    return float(value)
