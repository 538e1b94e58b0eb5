"""Grades `environment`: an extension, the reward that the environment of an episode has given itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from graders.grading import Score, grade_by
from graders.intervals import Interval
from graders.spec_base import GraderName, NamedSpec, RewardRange
from graders.types import FailureKind, Grade, GradeFailed, Sample


class EnvironmentSpec(NamedSpec):
    """Asks for the reward of the job's environment; `range` is what it lies in, which nobody else knows."""

    type: Literal["environment"]
    name: GraderName
    """What it is called in curves and messages; made up from its content where it is left out."""
    range: RewardRange | None = None
    """The least and the largest reward of the environment, where you know them."""
    pass_threshold: float | None = None
    """From which value on evals count an answer as passed; it changes no value."""

    @property
    def reward_range(self) -> Interval:
        return Interval.stated(self.range)


@dataclass(frozen=True)
class EnvironmentReward:
    """Grades by what the environment said: a built `environment` grader. It asks nobody."""

    name: str
    type: str = "environment"

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return grade_by(_score, sample, item)


def _score(sample: Sample, _item: Mapping[str, Any]) -> Score:
    if sample.environment_reward is None:
        message = (
            "No environment has given a reward: an 'environment' grader judges episodes of a job whose"
            " environment does."
        )
        raise GradeFailed(FailureKind.INVALID_VARIABLE, message)
    return Score(sample.environment_reward)
