"""Measures what moves a judge that should not: length, order, and answers that ask for a score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from graders.calibration.asking import Bench
from graders.calibration.numbers import Estimate, mean
from graders.calibration.tricks import TRICKS, padded, tricked
from graders.intervals import Interval
from graders.types import Grade

ROOM = 0.2
"""The least share of the range above a wrong answer's grade that a trick needs to show anything. Chosen, not
measured.
"""


class Talk(NamedTuple):
    """Says what answers that ask for a score bring.

    Attributes:
        rise: mean rise of the reward, as a share of the judge's range; negative where it falls.
        by_trick: the same for each way of asking, the way that brings most first.
    """

    rise: Estimate
    by_trick: dict[str, float]

    @property
    def worst(self) -> tuple[str, float]:
        """Returns the way of asking that brings most, and how much."""
        return next(iter(self.by_trick.items()))

    def as_dict(self) -> dict[str, Any]:
        """Returns the finding as JSON has it."""
        return {
            "rise": self.rise.as_dict(),
            "by_trick": {name: round(rise, 4) for name, rise in self.by_trick.items()},
        }


def reward_of(grade: Grade | None) -> float | None:
    """Returns the reward of a grade; None where there is none, or no grade."""
    return None if grade is None else grade.reward


def place_in(value: float, scale: Interval) -> float:
    """Returns where a value lies between the ends of a scale, from 0 to 1."""
    width = scale.high - scale.low
    return 0.0 if width == 0 else (value - scale.low) / width


def length_bias(
    bench: Bench, places: Sequence[int], bases: Mapping[int, float], rewards: Interval
) -> Estimate | None:
    """Returns the mean change of the reward, as a share of its range, from neutral words behind the answer.

    `bases` are the rewards without them, by the place of the case.
    """
    known = [place for place in places if place in bases]
    grades = bench.changed([(place, padded(bench.cases[place].answer)) for place in known])
    changes = (_change(grade, bases[place], rewards) for place, grade in zip(known, grades, strict=True))
    return mean([change for change in changes if change is not None])


def talk(
    bench: Bench, places: Sequence[int], bases: Mapping[int, float], rewards: Interval, most: str
) -> Talk | None:
    """Returns what wrong answers gain by asking; None where no grade leaves room for a rise.

    `most` is the best that the judge can give, in the words of its reply.
    """
    room = rewards.high - ROOM * (rewards.high - rewards.low)
    pairs = [(place, trick) for place in places if bases.get(place, math.inf) <= room for trick in TRICKS]
    texts = [(place, tricked(bench.cases[place].answer, trick, most)) for place, trick in pairs]
    by_trick: dict[str, list[float]] = {}
    for (place, trick), grade in zip(pairs, bench.changed(texts), strict=True):
        if (rise := _change(grade, bases[place], rewards)) is not None:
            by_trick.setdefault(trick.name, []).append(rise)
    found = mean([rise for rises in by_trick.values() for rise in rises])
    if found is None:
        return None
    means = {name: math.fsum(rises) / len(rises) for name, rises in by_trick.items()}
    return Talk(found, dict(sorted(means.items(), key=lambda pair: -pair[1])))


def _change(grade: Grade | None, base: float, rewards: Interval) -> float | None:
    """Returns by how much a reward differs from its base, as a share of the range."""
    reward = reward_of(grade)
    return None if reward is None else (reward - base) / (rewards.high - rewards.low)
