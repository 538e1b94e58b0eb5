"""Computes shares, means and rank correlations with their intervals, all of 95 %."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Z = 1.96
"""The normal distribution's quantile of a two-sided 95 %."""
T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)
"""Student's t of a two-sided 95 %, by degrees of freedom from 1; beyond the table `Z` + 2.4 / freedom, which
is off by less than 0.01."""
RESAMPLES = 1000
"""Resamples of a bootstrap. Chosen, not measured: the ends of the interval move by some 0.01 from seed to
seed."""


class Estimate(NamedTuple):
    """Holds a number, the ends of its 95 % interval, and of how many observations it is."""

    value: float
    low: float
    high: float
    n: int

    @property
    def is_beyond_luck(self) -> bool:
        """Tells whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    def as_dict(self) -> dict[str, Any]:
        """Returns the estimate as JSON has it."""
        return {
            "value": round(self.value, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
            "n": self.n,
        }


def share(hits: int, n: int) -> Estimate | None:
    """Returns a share with Wilson's interval, which also holds near 0 and 1; None of nothing."""
    if n == 0:
        return None
    p = hits / n
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    reach = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return Estimate(p, max(0.0, middle - reach), min(1.0, middle + reach), n)


def mean(values: Sequence[float]) -> Estimate | None:
    """Returns a mean with Student's interval; None of fewer than two values, which tell no spread."""
    n = len(values)
    if n < 2:
        return None
    found = np.array(values, dtype=float)
    middle = float(found.mean())
    reach = _t(n - 1) * float(found.std(ddof=1)) / math.sqrt(n)
    return Estimate(middle, middle - reach, middle + reach, n)


def rank_correlation(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Estimate | None:
    """Returns Spearman's rank correlation, with a bootstrap interval over the pairs.

    None of fewer than three pairs, or where one side is always the same.
    """
    pairs = np.array([first, second], dtype=float)
    value = _spearman(pairs)
    if value is None:
        return None
    n = pairs.shape[1]
    luck = np.random.default_rng(seed)
    drawn = (_spearman(pairs[:, luck.integers(0, n, n)]) for _ in range(RESAMPLES))
    low, high = np.quantile([each for each in drawn if each is not None], [0.025, 0.975])
    return Estimate(value, float(low), float(high), n)


def pooled_deviation(groups: Sequence[Sequence[float]]) -> float | None:
    """Returns the standard deviation within groups, pooled over those of two values or more; None of none."""
    within = [np.array(group, dtype=float) for group in groups if len(group) > 1]
    if not within:
        return None
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in within)
    return math.sqrt(squares / sum(len(group) - 1 for group in within))


def _spearman(pairs: NDArray[np.float64]) -> float | None:
    if pairs.shape[1] < 3:
        return None
    first, second = (_ranks(side) for side in pairs)
    spread = float(first.std() * second.std())
    if spread == 0:
        return None
    return float(((first - first.mean()) * (second - second.mean())).mean() / spread)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the ranks of values; equal ones share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place].astype(np.float64)


def _t(freedom: int) -> float:
    return T[freedom - 1] if freedom <= len(T) else Z + 2.4 / freedom
