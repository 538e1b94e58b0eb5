"""The grader `environment`: the reward that an episode's environment gave, and nothing else."""

from __future__ import annotations

import pytest

from graders import FailureKind, GraderInvalid, Sample, build_grader, parse_grader
from graders.spec import known_range

OWN = {"type": "environment", "name": "own", "range": [-1, 1]}


def test_it_gives_the_reward_of_the_environment() -> None:
    grader = build_grader(parse_grader(OWN))
    assert grader.grade(Sample("x", environment_reward=-0.5), {}).value == -0.5
    failure = grader.grade(Sample("x"), {}).failure
    assert failure is not None
    assert (failure.kind, "No environment" in failure.message) == (FailureKind.INVALID_VARIABLE, True)


def test_it_is_a_part_of_a_multi_and_has_the_range_that_is_stated() -> None:
    raw = {"type": "multi", "graders": {"own": OWN}, "calculate_output": "2 * own + 1"}
    spec = parse_grader(raw)
    assert build_grader(spec).grade(Sample("x", environment_reward=0.25), {}).value == 1.5
    assert known_range(spec) == (-1, 3)
    assert known_range(parse_grader({"type": "environment"})) is None


def test_it_takes_nothing_else() -> None:
    with pytest.raises(GraderInvalid, match="Unknown parameter: 'url'"):
        parse_grader({**OWN, "url": "https://example.com"})
