"""Whether the gold grader agrees that a run has gained: where it does not, the reward is being gamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from methods.paired import LEVEL, Array, compare
from methods.rewards import scale_of
from methods.train_config import TrainConfig
from workers.training.trust.selection import Look, p_of_fall

EVALUATIONS, WARNED_AT = 2, 0.01
"""Evaluations in a row at which the gap lies above 0 before it is warned of, and the level of the bound by
which it does at each. In simulated runs whose graders gained alike, at most 13 of 1,000 were warned of
(docs/decisions/0048-gap-to-the-gold-grader.md).
"""


class Gap(NamedTuple):
    """Says by how much the reward has gained more over the base than the gold reward, on the same rows.

    All but the step are in shares of each grader's range.

    Attributes:
        mean: over rows.
        low: lower end of a 95 % interval that is right for all evaluations together.
        high: the upper one.
        bound: one-sided 99 % lower bound of the same kind, by which it is warned of.
        reward: what the reward has gained over the base.
        gold: what the gold reward has gained.
    """

    step: int
    mean: float
    low: float
    high: float
    bound: float
    reward: float
    gold: float


class GoldOutcome(NamedTuple):
    """Says what the gold grader makes of what is delivered.

    Attributes:
        base: mean gold reward of the base, in the gold grader's units; None of no graded row.
        delivered: the same of what is delivered.
        difference: mean paired difference over rows.
        p_fall: the chance of so large a fall where there is none (paired sign-flip test); None without rows.
    """

    base: float | None
    delivered: float | None
    difference: float | None
    p_fall: float | None = None


def gold_gaps(looks: Sequence[Look], gold: Sequence[Look], config: TrainConfig) -> list[Gap]:
    """Returns the gap at each evaluation after the base's, over the rows that have both rewards at both."""
    rewards = {look.step: look for look in looks}
    both = [(rewards[one.step], one) for one in gold if one.step in rewards]
    if not both or both[0][0].step != 0:
        return []
    (base, gold_base), *later = both
    pairs = [
        (look.step, _gains(look, base, config.reward_range), _gains(one, gold_base, config.gold_range))
        for look, one in later
    ]
    kept = [(step, a, b, there) for step, a, b in pairs if (there := np.isfinite(a - b)).any()]
    if not kept:
        return []
    apart = np.stack([a - b for _, a, b, _ in kept])
    told, bounds = (compare(apart, config.measuring_seed, level) for level in (LEVEL / 2, WARNED_AT))
    return [
        Gap(step, one.mean, one.low, one.high, bound.low, float(a[there].mean()), float(b[there].mean()))
        for (step, a, b, there), one, bound in zip(kept, told, bounds, strict=True)
    ]


def gold_alarm(gaps: Sequence[Gap]) -> str | None:
    """Returns a warning where, at the last two evaluations, the reward had risen and the gap was no noise."""
    newest = gaps[-EVALUATIONS:]
    if len(newest) < EVALUATIONS or any(gap.bound <= 0 or gap.reward <= 0 for gap in newest):
        return None
    last = newest[-1]
    return (
        f"Step {last.step}: over the base, the grader says {last.reward:+.2g} and the gold grader"
        f" {last.gold:+.2g} (gap {last.mean:.2g}, 95 % {last.low:.2g} to {last.high:.2g}, in shares of each"
        f" one's range). The gap was beyond noise at the last {EVALUATIONS} evaluations. The model may have"
        " found what the grader pays for and nobody wants: read its answers."
    )


def _gains(look: Look, base: Look, reward_range: Sequence[float] | None) -> Array:
    """Returns each row's gain over the base as a share of a grader's range; nan where a row has none."""
    scale = scale_of(reward_range)
    gained: Array = np.array(look.rows, dtype=float) - np.array(base.rows, dtype=float)
    return gained / ((scale.high - scale.low) or 1.0)


def gold_outcome(gold: Sequence[Look], step: int, seed: int) -> GoldOutcome | None:
    """Returns what the gold grader says of the checkpoint of a step; None without a gold grader."""
    if not gold:
        return None
    base = gold[0]
    delivered = next((look for look in gold if look.step == step), None)
    if delivered is None:
        return GoldOutcome(_mean(base), None, None)
    fall = p_of_fall(base, delivered, seed) if step > 0 else None
    return GoldOutcome(_mean(base), _mean(delivered), difference(delivered, base), fall)


def difference(look: Look, base: Look) -> float | None:
    """Returns the mean over rows of a look's differences to the base; None without a common row."""
    found = np.array(look.rows, dtype=float) - np.array(base.rows, dtype=float)
    found = found[np.isfinite(found)]
    return float(found.mean()) if len(found) else None


def _mean(look: Look) -> float | None:
    rows = [row for row in look.rows if row is not None]
    return sum(rows) / len(rows) if rows else None
