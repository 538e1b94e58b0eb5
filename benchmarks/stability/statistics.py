"""The few tests and intervals of the report. Rows are paired: the same prompts, the same random numbers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

LEVEL = 0.05
"""The issue's: 5 %, and 95 % for intervals."""


class Interval(NamedTuple):
    """A mean, its standard error and its 95 % interval by Student's t."""

    mean: float
    stderr: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f}, n={self.n})"


def worse_p(differences: Sequence[float]) -> float:
    """Returns the one-sided p of "no worse than the base" for paired differences, by Student's t.

    Differences that are all the same leave no doubt: 0 if they are below zero, else 1.
    """
    mean, spread = float(np.mean(differences)), float(np.ptp(differences))
    if spread == 0:
        return 0.0 if mean < 0 else 1.0
    return float(stats.ttest_1samp(differences, 0.0, alternative="less").pvalue)


def holm(values: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Returns which hypotheses fall at the level over all of them together.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    falls = [False] * len(values)
    for rank, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        if values[i] > level / (len(values) - rank):
            break
        falls[i] = True
    return falls


def interval(values: Sequence[float]) -> Interval:
    """Returns the mean of independent values and its interval."""
    return clustered(values, range(len(values)))


def clustered(values: Sequence[float], clusters: Sequence[Hashable]) -> Interval:
    """Returns the mean of values that depend on each other within a cluster, and its interval.

    The standard error is that of Liang and Zeger 1986 with the correction c / (c - 1) for c clusters; a
    single cluster has none, and an interval without bounds.
    """
    n, mean = len(values), math.fsum(values) / len(values)
    sums: dict[Hashable, float] = defaultdict(float)
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] += value - mean
    c = len(sums)
    if c < 2:
        return Interval(mean, math.inf, -math.inf, math.inf, n)
    error = math.sqrt(c / (c - 1) * math.fsum(each**2 for each in sums.values())) / n
    width = float(stats.t.ppf(1 - LEVEL / 2, c - 1)) * error
    return Interval(mean, error, mean - width, mean + width, n)


def middle_mean(values: Sequence[float]) -> float:
    """Returns the interquartile mean: that of the middle half."""
    return float(stats.trim_mean(values, 0.25))


def worst_decile(values: Sequence[float]) -> float:
    """Returns the mean of the lowest tenth, of one value at least."""
    lowest = sorted(values)[: max(1, len(values) // 10)]
    return math.fsum(lowest) / len(lowest)


def highest_rate(hits: int, n: int) -> float:
    """Returns the 95 % upper bound of a rate (Clopper and Pearson 1934)."""
    return 1.0 if hits == n else float(stats.beta.ppf(1 - LEVEL, hits + 1, n - hits))
