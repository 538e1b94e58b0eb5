"""What samples of the base promise: how much of a step can teach anything, and what gain can be shown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from methods.rewards import Scale


class Shares(NamedTuple):
    """Shares of prompts by how often the base gets them right."""

    never: float
    sometimes: float
    always: float


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
