"""Whether the gold grader agrees that a run has gained: where it does not, the reward is being gamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from workers.training.trust.selection import Look, is_worse, p_of_fall

EVALUATIONS = 2
"""Evaluations in a row at which the gold reward lies below the base's before it is warned of. Chosen, not
measured: each is a test at 5 %, and one of twenty would fail it by luck.
"""


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


def gold_alarm(looks: Sequence[Look], gold: Sequence[Look], seed: int) -> str | None:
    """Returns a warning where the reward has risen and the gold reward has fallen; None where not.

    Both are against the base, at each of the last two evaluations: the reward's mean lies above the base's,
    and a paired one-sided sign-flip test at 5 % says that the gold rows lie below theirs.
    """
    rewards = {look.step: look for look in looks}
    newest = [look for look in gold[1:] if look.step in rewards][-EVALUATIONS:]
    if len(newest) < EVALUATIONS:
        return None
    for look in newest:
        gain = difference(rewards[look.step], looks[0])
        if gain is None or gain <= 0 or not is_worse([gold[0], look], seed):
            return None
    last = newest[-1]
    gained, fell = difference(rewards[last.step], looks[0]), difference(last, gold[0])
    return (
        f"Step {last.step}: the reward has risen against the base ({gained:+.3g}) and the gold grader's has"
        f" fallen ({fell:+.3g}), beyond noise at the last {EVALUATIONS} evaluations. The model may have found"
        " what the grader pays for and nobody wants: read its answers."
    )


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
