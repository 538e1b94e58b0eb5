"""Which checkpoints are better than the base, right over all looks at once: a max-statistic sign-flip test.

Under "no better than the base" each row's difference to the base is as likely to have the other sign. The
signs of rows are flipped for all checkpoints together, which keeps how they resemble each other, and the
largest statistic of each flip is what an observed one is compared with: Westfall and Young 1993,
Resampling-based multiple testing; step-down as in Romano and Wolf 2005, JASA 100:94. So the chance that luck
alone makes any checkpoint count as better is 5 %, however many there are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
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


class Look(NamedTuple):
    """Holds what was measured of the policy at one step.

    Attributes:
        step: updates made before it; 0 is the base.
        kl: to the starting policy, in nats per token.
        rows: mean reward of each evaluation row (or fresh completion), in grader units; None where there is
            none.
        is_given_up: the guard gave its weights up, so that there is no checkpoint of it. It counts as a look
            all the same.
    """

    step: int
    kl: float
    rows: tuple[float | None, ...]
    is_given_up: bool = False


class Judged(NamedTuple):
    """Says how a checkpoint compares with the base on the same rows.

    Attributes:
        step: the checkpoint's.
        kl: to the starting policy, in nats per token.
        n: rows with a reward by both.
        mean: paired difference to the base, in grader units.
        stderr: its standard error over rows.
        low: one-sided 95 % lower bound, right for all checkpoints together.
        high: the upper one.
        p: the chance of so large a gain of any checkpoint where there is none, adjusted for all of them.
        is_given_up: there is no checkpoint of it: the guard gave its weights up.
    """

    step: int
    kl: float
    n: int
    mean: float
    stderr: float
    low: float
    high: float
    p: float
    is_given_up: bool = False

    @property
    def is_better(self) -> bool:
        """Whether it is better than the base beyond doubt."""
        return self.p <= LEVEL


def judge(looks: Sequence[Look], seed: int) -> list[Judged]:
    """Compares all looks with that at step 0, the first; looks without a common row are left out.

    The same looks and seed give the same numbers.
    """
    if not looks or looks[0].step != 0:
        return []
    base = np.array(looks[0].rows, dtype=float)  # None becomes nan
    kept = [(look, np.array(look.rows, dtype=float) - base) for look in looks[1:]]
    kept = [(look, row) for look, row in kept if np.isfinite(row).any()]
    if not kept:
        return []
    differences = np.stack([row for _, row in kept])
    there = np.isfinite(differences)
    flat = np.where(there, differences, 0.0)
    n = there.sum(axis=1)
    mean = flat.sum(axis=1) / n
    stderr = _standard_errors(flat, there, mean, n)
    p = _adjusted(_statistics(flat, _signs(flat, seed)))
    centred = np.where(there, flat - mean[:, None], 0.0)
    reach = _reach(centred, _signs(centred, seed), n) * stderr
    return [
        Judged(
            look.step,
            look.kl,
            int(n[i]),
            float(mean[i]),
            float(stderr[i]),
            float(mean[i] - reach[i]),
            float(mean[i] + reach[i]),
            float(p[i]),
            look.is_given_up,
        )
        for i, (look, _) in enumerate(kept)
    ]


def choose(judged: Sequence[Judged], kept: Collection[int]) -> Judged | None:
    """Returns the one to deliver, of those whose files are `kept`; None where the base is as good.

    Among those that are better than the base beyond doubt, and within one standard error of the best of
    them, it is the nearest to the starting policy, then the earliest.
    """
    better = [one for one in judged if one.is_better and one.step in kept]
    if not better:
        return None
    best = max(better, key=lambda one: one.mean)
    near = [one for one in better if one.mean >= best.mean - best.stderr]
    return min(near, key=lambda one: (one.kl, one.step))


def is_worse(looks: Sequence[Look], seed: int) -> bool:
    """Whether the last look is worse than the base beyond doubt: the same test with the signs changed.

    What was given up is no result of the run.
    """
    stayed = [look for look in looks if not look.is_given_up]
    if len(stayed) < 2:
        return False
    p = p_of_fall(stayed[0], stayed[-1], seed)
    return p is not None and p <= LEVEL


def p_of_fall(base: Look, look: Look, seed: int) -> float | None:
    """Returns the chance of so large a fall below the base where there is none; None without common rows."""
    mirrored = [Look(0, 0.0, look.rows), Look(1, 0.0, base.rows)]
    found = judge(mirrored, seed)
    return found[0].p if found else None


def _signs(flat: Array, seed: int) -> Array:
    """Returns flips as rows of +1 and -1, the observed signs first: all of them, or some seeded ones.

    Rows without a difference by any checkpoint change nothing and are not flipped.
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


def _reach(centred: Array, signs: Array, n: NDArray[np.int_]) -> float:
    """Returns how many standard errors a bound lies from its mean, for all looks together.

    It is the 95 % quantile over flips of the largest t of the centred differences, which have no mean but in
    the flips: a one-sided bound, and by symmetry the same on either side.
    """
    ratio = np.clip(_statistics(centred, signs), -np.sqrt(n), np.sqrt(n))
    rest = np.maximum(n - ratio**2, TIE)
    largest = np.max(ratio * np.sqrt(np.maximum(n - 1, 1) / rest), axis=1)
    return max(0.0, float(np.quantile(largest, 1 - LEVEL)))


def _standard_errors(flat: Array, there: NDArray[np.bool_], mean: Array, n: NDArray[np.int_]) -> Array:
    squares = (np.where(there, flat - mean[:, None], 0.0) ** 2).sum(axis=1)
    found: Array = np.sqrt(squares / np.maximum(n - 1, 1) / n)
    return found
