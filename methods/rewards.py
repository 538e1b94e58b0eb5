"""What a grader's rewards mean: from its least to its largest, and how close together they count as equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from graders import FailureKind

LEAST_SPREAD = 1e-3
"""Rewards of a group that are closer together than this share of the grader's range count as equal. In a
trial a constant grader with 1e-5 of jitter trained at full strength (mean |advantage| 0.79, KL 1.5):
advantages are divided by their own spread, and Adam divides by the size of gradients, so that noise alone is
as strong as anything. The thousandth was chosen: far above such noise, and below what graders with steps of a
hundredth tell apart.
"""


PARSE_FAULT = FailureKind.SAMPLE_PARSE.value
"""The failure of a completion that does not parse, which trains as the least that the grader can give."""


class Scale(NamedTuple):
    """The least and the largest reward of a grader, in its units, and the size that noise is measured by."""

    low: float
    high: float
    size: float | None = None
    """None: as wide as the range is."""

    @property
    def least_spread(self) -> float:
        """The difference of two rewards up to which it is taken for noise."""
        return LEAST_SPREAD * (self.high - self.low if self.size is None else self.size)

    @property
    def right_from(self) -> float:
        """The reward from which on a completion counts as right: the largest, but for noise."""
        return self.high - self.least_spread

    @property
    def wrong_to(self) -> float:
        """The reward up to which a completion counts as wrong: the least, but for noise."""
        return self.low + self.least_spread


def scale_of(reward_range: Sequence[float] | None, largest: float = 1.0) -> Scale:
    """Returns the scale of a grader with this range; one that is not known is taken to go from 0 to 1.

    Where it is not known and no reward was farther from 0 than `largest`, noise is measured by that: rewards
    of a millionth are no noise among their like.
    """
    if reward_range is None:
        return Scale(0.0, 1.0, min(1.0, largest))
    low, high = reward_range
    return Scale(low, high)
