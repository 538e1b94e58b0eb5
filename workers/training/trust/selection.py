"""Which checkpoints are better than the base, right over all looks at once: a max-statistic sign-flip test.

`methods/paired.py` has the test. The chance that luck alone makes any checkpoint count as better is 5 %,
however many there are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from methods.paired import LEVEL, compare


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
    compared = compare(np.stack([row for _, row in kept]), seed)
    return [
        Judged(look.step, look.kl, *found, look.is_given_up)
        for (look, _), found in zip(kept, compared, strict=True)
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
