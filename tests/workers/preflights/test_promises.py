"""What a preflight says of the base's answers, and what it advises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graders import Failure, FailureKind, Grade
from tests.workers.training.support import make_config, reward_groups
from workers.preflights.base_samples import Samples
from workers.preflights.promises import base_findings, base_numbers
from workers.training.base.types import Group


def told(rewards: list[list[float]], **changes: Any) -> dict[str, tuple[str, str]]:
    return told_of(reward_groups(rewards), **changes)


def told_of(groups: list[Group], *, is_of_groups: bool = False, **changes: Any) -> dict[str, tuple[str, str]]:
    config = make_config(Path("m"), group_size=8, **{"allow_flat_reward": False, **changes})
    samples = Samples(groups, list(range(1, len(groups) + 1)))
    base = base_numbers(samples, config, is_of_groups=is_of_groups)
    return {one.code: (one.severity, one.message) for one in base_findings(samples, base, config)}


def flat(reward: Callable[[int], float], prompts: int = 32) -> str:
    severity, message = told([[reward(row)] * 8 for row in range(prompts)])["flat_reward"]
    assert severity == ("error" if prompts == 32 else "warn")
    assert f"in {prompts * 8} completions" in message
    return message


@pytest.mark.parametrize(
    ("reward", "advice"),
    [
        (lambda row: 1.0, "nothing is left to learn: use harder rows"),
        (lambda row: 0.0, "None is right: use easier rows"),
        (lambda row: 0.4, "the grader does not tell answers apart"),
        (lambda row: float(row % 4 == 0), "25% of the prompts are always right and the others never"),
    ],
)
def test_answers_that_all_get_the_same_are_advised_by_what_they_get(
    reward: Callable[[int], float], advice: str
) -> None:
    assert advice in flat(reward)
    assert advice in flat(reward, prompts=8)


@pytest.mark.parametrize(("usual", "advice"), [(1.0, "harder prompts"), (0.0, "easier prompts")])
def test_a_weak_signal_is_advised_by_which_prompts_have_none(usual: float, advice: str) -> None:
    severity, message = told([[usual] * 8] * 31 + [[0.0, 1.0] * 4])["weak_signal"]
    assert (severity, advice in message) == ("warn", True)


def test_where_answers_are_compared_none_is_called_right_or_wrong() -> None:
    flat_groups, weak = [[0.5] * 8] * 32, [[0.9] * 8] * 31 + [[0.0, 1.0] * 4]
    found = told_of(reward_groups(flat_groups), is_of_groups=True)
    assert list(found) == ["flat_reward"]
    assert "the judge tells none of them apart" in found["flat_reward"][1]
    found = told_of(reward_groups(weak), is_of_groups=True)
    assert list(found) == ["weak_signal"]
    assert "other prompts" in found["weak_signal"][1]


def test_small_rewards_of_an_unknown_range_are_a_signal() -> None:
    assert "flat_reward" not in told([[0.0, 1e-6] * 4] * 32)
    assert "flat_reward" in told([[0.5, 0.500001] * 4] * 32)


def test_answers_of_which_none_was_graded_are_a_fault_of_the_grader() -> None:
    failed = Grade(None, Failure(FailureKind.PYTHON_RUNTIME, "KeyError: 'gold'"))
    groups = [
        Group(group.prompt, group.completions, (failed,) * 8) for group in reward_groups([[0.0] * 8] * 32)
    ]
    found = told_of(groups)
    assert "flat_reward" not in found
    severity, message = found["answers_ungraded"]
    assert (severity, "KeyError: 'gold'" in message) == ("error", True)
