"""What samples of the base promise: how much of a step can teach anything, and what gain can be shown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist, fmean
from typing import NamedTuple

from graders.types import Grade
from methods.auto import LEAST_UNSEEN
from methods.rewards import Scale
from workers.training.trust.selection import LEVEL
from workers.training.trust.verdict import POWER, Basis

GAIN_STEPS = 200
"""Gains that are tried, up to the largest possible. Chosen, not measured: half a percent of the room is finer
than the estimate."""


class Shares(NamedTuple):
    """Shares of prompts by how often the base gets them right."""

    never: float
    sometimes: float
    always: float


def rewards_by_prompt(grades: Sequence[Sequence[Grade]]) -> list[list[float]]:
    """Returns the rewards of each prompt that has any."""
    found = [[reward for grade in group if (reward := grade.reward) is not None] for group in grades]
    return [group for group in found if group]


def shares(groups: Sequence[Sequence[float]], scale: Scale) -> Shares:
    """Returns how many prompts are never, sometimes and always right."""
    right = [fmean(reward >= scale.right_from for reward in group) for group in groups]
    never, always = sum(share == 0 for share in right), sum(share == 1 for share in right)
    n = len(groups)
    return Shares(never / n, (n - never - always) / n, always / n)


def expected_signal(groups: Sequence[Sequence[float]], group_size: int, scale: Scale) -> float:
    """Returns the share of a job's groups that will have spread, and so teach anything.

    Of a prompt whose rewards are v with probability q_v, a group of G has none with probability sum q_v^G:
    with two rewards 1 - p^G - (1-p)^G. The probabilities are the shares that were seen, so that a prompt seen
    always right, or always wrong, counts as one without signal.
    """
    return fmean(1 - _flat(group, group_size, scale.least_spread) for group in groups)


def _flat(rewards: Sequence[float], group_size: int, least: float) -> float:
    counts = Counter(_levels(rewards, least))
    return math.fsum((count / len(rewards)) ** group_size for count in counts.values())


def _levels(rewards: Sequence[float], least: float) -> list[float]:
    """Returns the rewards with those that are closer together than counts taken for the same."""
    level = -math.inf
    levels = []
    for reward in sorted(rewards):
        if reward - level > least:
            level = reward
        levels.append(level)
    return levels


class Evaluation(NamedTuple):
    """What a job is judged by: so many rows and answers to each, in so many looks at its checkpoints."""

    basis: Basis
    rows: int
    samples: int
    looks: int


def smallest_gain(groups: Sequence[Sequence[float]], by: Evaluation, scale: Scale) -> float | None:
    """Returns the smallest mean gain that an evaluation can show, in grader units; None for none.

    At 5 % one-sided over all looks (Bonferroni) a gain d is found in 80 % of jobs where d is at least
    (z_(1 - 0.05 / looks) + z_0.8) times its standard error. The variance of a row's difference is that of two
    means of so many answers, the tuned model's taken to be as large a share of the largest possible as the
    base's, plus that of the gain itself: as if half of the rows gained 2d and half nothing, as far as there
    is room for that. At least `LEAST_UNSEEN` rows must gain one answer.
    """
    rewards = [reward for group in groups for reward in group]
    low, high = min(scale.low, *rewards), max(scale.high, *rewards)  # a range that was not known is a guess
    mean = fmean(rewards)
    within = fmean(_variance(group) for group in groups)
    most = (mean - low) * (high - mean)
    share = min(1.0, within / most) if most > 0 else 1.0
    z = NormalDist().inv_cdf(1 - LEVEL / max(1, by.looks)) + NormalDist().inv_cdf(POWER)
    room = high - mean
    if by.rows < LEAST_UNSEEN or room <= 0:
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
