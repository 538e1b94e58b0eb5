"""The handed grader cases: verdicts that were found wrong in the wild, each with the right one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from graders import Sample, build_grader, parse_grader
from graders.grading import grade_safely
from graders.sandbox import LocalSandbox, SandboxSettings
from graders.services import Services
from tests.shared_data import SHARED

FOLDER = SHARED / "cases" / "graders"
HOW = (
    "POST /v1/fine_tuning/alpha/graders/run with grader, model_sample = sample, item; "
    "reward must be expected and no error flag set"
)


def readable(text: str) -> str:
    """The first words of an answer, for a test's name."""
    return re.sub(r"[^\w.+*/^-]+", "_", text[:28], flags=re.ASCII).strip("_") or "empty"


def handed() -> Iterator[Any]:
    """Each case with its kind's file; one skipped test where the folder is absent."""
    files = sorted(FOLDER.glob("*.json"))
    if not files:
        reason = f"no {FOLDER} (set CHERRY_SHARED to the folder of the shared data)"
        yield pytest.param({}, marks=pytest.mark.skip(reason=reason), id="absent")
    for file in files:
        content = json.loads(file.read_bytes())
        assert content["how"] == HOW, f"{file.name} is run in another way than this test does"
        for at, case in enumerate(content["cases"]):
            yield pytest.param(case, id=f"{file.stem}-{at}-{readable(case['sample'])}")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[LocalSandbox]:
    started = LocalSandbox(SandboxSettings(parallel=1))
    yield started
    started.close()


@pytest.mark.parametrize("case", list(handed()))
def test_a_handed_answer_gets_the_reward_that_is_right(case: dict[str, Any], sandbox: LocalSandbox) -> None:
    spec = parse_grader(case["grader"])
    if spec.type in ("code_tests", "python") and (reason := sandbox.why_not()) is not None:
        pytest.skip(f"no sandbox holds here: {reason}")
    grade = grade_safely(build_grader(spec, Services(sandbox=sandbox)), Sample(case["sample"]), case["item"])
    assert (grade.failure, dict(grade.part_failures)) == (None, {})
    assert grade.value == pytest.approx(case["expected"]), grade.reason
