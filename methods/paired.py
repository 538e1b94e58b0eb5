"""Compares answers to the same rows: how much better, how sure, by flipping signs; for several at once too.

Under "no better" each row's difference is as likely to have the other sign. The signs of rows are flipped
for all looks together, which keeps how they resemble each other, and the largest statistic of each flip is
what an observed one is compared with: Westfall and Young 1993, Resampling-based multiple testing; step-down
as in Romano and Wolf 2005, JASA 100:94. So the chance that luck alone makes any look count as better is the
level, however many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""The chance of a false claim that is accepted: a convention, not a measurement."""
ALL_FLIPS_UP_TO = 12
"""Rows up to which all flips are tried, 4,096 of them. Chosen, not measured: that takes milliseconds."""
SOME_FLIPS = 8192
"""Flips drawn where there are more rows, the observed signs among them. Chosen, not measured: the standard
error of a p of 5 % is then 0.24 %.
"""
TIE = 1e-9
"""Statistics this near each other are equal: they differ by rounding. Chosen, not measured."""

Array = NDArray[np.float64]


class Compared(NamedTuple):
    """Says how two answers to the same rows compare.

    Attributes:
        n: rows that both have a number for.
        mean: paired difference.
        stderr: its standard error over rows.
        low: one-sided lower bound, right for all looks together.
        high: the upper one.
        p: the chance of so large a gain of any look where there is none, adjusted for all of them.
    """

    n: int
    mean: float
    stderr: float
    low: float
    high: float
    p: float


def compare(differences: Array, seed: int, level: float = LEVEL) -> list[Compared]:
    """Returns what the differences of each look say, (looks, rows); nan where a row has none.

    Each look has a row. The same differences and seed give the same numbers.
    """
    there = np.isfinite(differences)
    flat = np.where(there, differences, 0.0)
    n = there.sum(axis=1)
    mean = flat.sum(axis=1) / n
    stderr = _standard_errors(flat, there, mean, n)
    p = _adjusted(_statistics(flat, _signs(flat, seed)))
    centred = np.where(there, flat - mean[:, None], 0.0)
    reach = _reach(centred, _signs(centred, seed), n, level) * stderr
    return [
        Compared(
            int(n[i]),
            float(mean[i]),
            float(stderr[i]),
            float(mean[i] - reach[i]),
            float(mean[i] + reach[i]),
            float(p[i]),
        )
        for i in range(len(differences))
    ]


def compare_two(
    before: Sequence[float | None], after: Sequence[float | None], seed: int = 0
) -> Compared | None:
    """Returns how two series of the same rows compare, either being as likely to be the better one.

    The interval is a 95 % one of both sides, and p counts differences either way. Returns None without a row
    that both have.
    """
    pairs = zip(before, after, strict=True)
    found = [b - a for a, b in pairs if a is not None and b is not None]
    if not found:
        return None
    gain = np.array([found])
    (better,), (worse,) = compare(gain, seed, LEVEL / 2), compare(-gain, seed, LEVEL / 2)
    return better._replace(p=min(1.0, 2 * min(better.p, worse.p)))


def _signs(flat: Array, seed: int) -> Array:
    """Returns flips as rows of +1 and -1, the observed signs first: all of them, or some seeded ones.

    Rows without a difference by any look change nothing and are not flipped.
    """
    n = flat.shape[1]
    moving = np.flatnonzero(np.abs(flat).max(axis=0) > 0)
    if len(moving) <= ALL_FLIPS_UP_TO:
        bits = (np.arange(2 ** len(moving))[:, None] >> np.arange(len(moving))) & 1
        flips = 1.0 - 2.0 * bits
    else:
        flips = 1.0 - 2.0 * np.random.default_rng(seed).integers(0, 2, size=(SOME_FLIPS, len(moving)))
        flips[0] = 1.0
    signs = np.ones((len(flips), n))
    signs[:, moving] = flips
    return signs


def _statistics(flat: Array, signs: Array) -> Array:
    """Returns sum over root of the sum of squares, (flips, looks): it grows with Student's t, and is finite
    where all differences are equal."""
    size = np.sqrt((flat**2).sum(axis=1))
    found: Array = (signs @ flat.T) / np.where(size > 0, size, 1.0)
    return found


def _adjusted(statistics: Array) -> Array:
    """Returns each look's p by stepping down from the largest statistic: (flips, looks) to (looks,)."""
    observed = statistics[0]
    order = np.argsort(-observed, kind="stable")
    largest = np.maximum.accumulate(statistics[:, order[::-1]], axis=1)[:, ::-1]
    p: Array = (largest >= observed[order] - TIE).mean(axis=0)
    found = np.empty(len(p))
    found[order] = np.maximum.accumulate(p)
    return found


def _reach(centred: Array, signs: Array, n: NDArray[np.int_], level: float) -> float:
    """Returns how many standard errors a bound lies from its mean, for all looks together.

    It is a quantile over flips of the largest t of the centred differences, which have no mean but in
    the flips: a one-sided bound, and by symmetry the same on either side.
    """
    ratio = np.clip(_statistics(centred, signs), -np.sqrt(n), np.sqrt(n))
    rest = np.maximum(n - ratio**2, TIE)
    largest = np.max(ratio * np.sqrt(np.maximum(n - 1, 1) / rest), axis=1)
    return max(0.0, float(np.quantile(largest, 1 - level)))


def _standard_errors(flat: Array, there: NDArray[np.bool_], mean: Array, n: NDArray[np.int_]) -> Array:
    squares = (np.where(there, flat - mean[:, None], 0.0) ** 2).sum(axis=1)
    found: Array = np.sqrt(squares / np.maximum(n - 1, 1) / n)
    return found
