"""Compares a grader with people: how often both say the same, and whether they order answers alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any, Literal, NamedTuple

from graders.calibration.biases import place_in
from graders.calibration.numbers import Estimate, rank_correlation, share
from graders.intervals import Interval

LEAST_STEP = 0.1
"""The least step of people's scores, as a share of their scale: scores with decimals have no steps. Chosen,
not measured."""
ROUNDING = 1e-9


class Agreement(NamedTuple):
    """Says how far a grader agrees with people.

    Attributes:
        statistic: `pass_fail`: both are on the same side of the middle of people's two scores, or the grader
            of its `pass_threshold`; `within_one_step`: the two are at most one step of the people's scale
            apart; `same_order`, of a grader of groups: both prefer the same of two answers to a row that
            people scored differently.
        share: of the answers, or pairs of answers, for which that holds.
        constant_share: the share that always saying one and the same would reach.
        scale: what people's scores are read as being from and to; None where only their order counts.
        step: of the people's scale, in its own units; None for pass or fail.
        correlation: Spearman's, over the answers; None where one side never differs.
    """

    statistic: Literal["pass_fail", "within_one_step", "same_order"]
    share: Estimate
    constant_share: float
    scale: Interval | None
    step: float | None
    correlation: Estimate | None

    def as_dict(self) -> dict[str, Any]:
        """Returns the agreement as JSON has it."""
        return {
            "statistic": self.statistic,
            "share": self.share.as_dict(),
            "constant_share": round(self.constant_share, 4),
            "people_scale": list(self.scale) if self.scale else None,
            "step": self.step,
            "rank_correlation": self.correlation.as_dict() if self.correlation else None,
        }


def scale_of(labels: Sequence[float], rewards: Interval) -> Interval:
    """Returns what people's scores are from and to: the grader's own range where all lie in it, else their
    own least and largest."""
    low, high = min(labels), max(labels)
    return rewards if rewards.low <= low and high <= rewards.high else Interval(low, high)


def agreement(
    pairs: Sequence[tuple[float, float]],
    rewards: Interval,
    scale: Interval | None = None,
    threshold: float | None = None,
) -> Agreement | None:
    """Compares rewards with people's scores, as (reward, score); None of none.

    `rewards` is the grader's range, and `scale` the people's. `threshold` is the reward from which on an
    answer passes; where it is None, what people's two scores have between them.
    """
    if not pairs:
        return None
    labels = [label for _, label in pairs]
    scale = scale or scale_of(labels, rewards)
    given = [place_in(reward, rewards) for reward, _ in pairs]
    wanted = [place_in(label, scale) for label in labels]
    correlation = rank_correlation([reward for reward, _ in pairs], labels)
    if len(set(labels)) <= 2:
        middle = 0.5 if len(set(labels)) == 1 else (min(wanted) + max(wanted)) / 2
        bar = middle if threshold is None else place_in(threshold, rewards)
        passes = [place >= middle for place in wanted]
        hits = sum((mine >= bar) == people for mine, people in zip(given, passes, strict=True))
        found = share(hits, len(pairs))
        assert found is not None, "there are pairs"
        constant = max(Counter(passes).values()) / len(pairs)
        return Agreement("pass_fail", found, constant, scale, None, correlation)
    step = _step(wanted)
    hits = sum(abs(mine - people) <= step + ROUNDING for mine, people in zip(given, wanted, strict=True))
    found = share(hits, len(pairs))
    assert found is not None, "there are pairs"
    constant = max(sum(abs(one - each) <= step + ROUNDING for each in wanted) for one in wanted)
    width = scale.high - scale.low
    return Agreement(
        "within_one_step", found, constant / len(pairs), scale, round(step * width, 6), correlation
    )


def agreement_in_groups(groups: Sequence[Sequence[tuple[float, float]]]) -> Agreement | None:
    """Compares rewards with people's scores within groups, as (reward, score): rewards of different groups
    tell nothing of each other. None where people have scored no two answers of a group differently.

    Equal rewards are half of a same order. The rank correlation is over all answers, each less its group's
    mean.
    """
    pairs = [
        (one[0] - other[0], one[1] - other[1])
        for group in groups
        for place, one in enumerate(group)
        for other in group[:place]
        if one[1] != other[1]
    ]
    halves = sum(1 if mine == 0 else 2 * (mine * people > 0) for mine, people in pairs)
    found = share(halves // 2, len(pairs))
    if found is None:
        return None
    mine, people = (
        [value for group in groups for value in _centred([pair[k] for pair in group])] for k in (0, 1)
    )
    return Agreement("same_order", found, 0.5, None, None, rank_correlation(mine, people))


def _centred(values: Sequence[float]) -> list[float]:
    """Returns how far each value is from their mean."""
    return [value - fmean(values) for value in values]


def _step(places: Sequence[float]) -> float:
    """Returns the least distance of two different scores, but no less than `LEAST_STEP`."""
    known = sorted(set(places))
    return max(LEAST_STEP, min(after - before for before, after in pairwise(known)))
