"""What gain an evaluation could show at all, from what the base's rewards are like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean
from typing import NamedTuple

from graders.types import Grade
from methods.auto import LEAST_UNSEEN
from methods.paired import LEVEL
from methods.rewards import Scale
from workers.training.trust.verdict import Basis

POWER = 0.8
"""The chance with which a gain of the smallest size would be seen: a convention, not a measurement."""
GAIN_STEPS = 200
"""Gains that are tried, up to the largest possible. Chosen, not measured: half a percent of the room is finer
than the estimate.
"""


def rewards_by_prompt(grades: Sequence[Sequence[Grade]]) -> list[list[float]]:
    """Returns the rewards of each prompt that has any."""
    found = [[reward for grade in group if (reward := grade.reward) is not None] for group in grades]
    return [group for group in found if group]


class Judging(NamedTuple):
    """What a job is judged by: so many rows and answers to each, in so many looks at its checkpoints."""

    basis: Basis
    rows: int
    samples: int
    looks: int


def smallest_gain(groups: Sequence[Sequence[float]], by: Judging, scale: Scale) -> float | None:
    """Returns the smallest mean gain that an evaluation can show, in grader units; None for none.

    At 5 % one-sided over all looks (Bonferroni) a gain d is found in 80 % of jobs where d is at least
    (z_(1 - 0.05 / looks) + z_0.8) times its standard error. The variance of a row's difference is that of two
    means of so many answers, the tuned model's taken to be as large a share of the largest possible as the
    base's, plus that of the gain itself: as if half of the rows gained 2d and half nothing, as far as there
    is room for that. At least `LEAST_UNSEEN` rows must gain one answer. Where no prompt has two rewards, the
    spread of all stands for that of a prompt's.
    """
    rewards = [reward for group in groups for reward in group]
    low, high = min(scale.low, *rewards), max(scale.high, *rewards)  # a range that was not known is a guess
    mean = fmean(rewards)
    several = [group for group in groups if len(group) > 1]
    within = fmean(map(_variance, several)) if several else _variance(rewards)
    most = (mean - low) * (high - mean)
    share = min(1.0, within / most) if most > 0 else 1.0
    z = NormalDist().inv_cdf(1 - LEVEL / max(1, by.looks)) + NormalDist().inv_cdf(POWER)
    room = high - mean
    compared = by.rows if by.basis == "unseen" else by.rows * by.samples
    if compared < LEAST_UNSEEN or room <= 0:
        return None

    def can_be_shown(gain: float) -> bool:
        after = max(within, share * (mean + gain - low) * (high - mean - gain))
        between = gain * min(gain, room - gain)
        return gain >= z * math.sqrt(((within + after) / by.samples + between) / by.rows)

    least = LEAST_UNSEEN * (high - low) / (by.rows * by.samples)
    steps = [max(least, room * step / GAIN_STEPS) for step in range(1, GAIN_STEPS + 1)]
    return next((gain for gain in steps if gain <= room and can_be_shown(gain)), None)


def _variance(values: Sequence[float]) -> float:
    """Returns the unbiased variance; 0 of a single value, which tells nothing of it."""
    if len(values) < 2:
        return 0.0
    mean = fmean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
