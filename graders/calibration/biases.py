"""Measures what moves a judge that should not: length, order, and answers that ask for a score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from graders.calibration.asking import Asked, Asker
from graders.calibration.cases import Case
from graders.calibration.numbers import Estimate, mean
from graders.calibration.tricks import TRICKS, padded, tricked
from graders.intervals import Interval
from graders.types import Grade, Grader

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
    asker: Asker, grader: Grader, cases: Sequence[Case], bases: Sequence[float | None], rewards: Interval
) -> Estimate | None:
    """Returns the mean change of the reward, as a share of its range, from neutral words behind the answer.

    `bases` are the rewards without them.
    """
    grades = asker.grade(grader, [Asked(padded(case.answer), case.item) for case in cases])
    return mean(_changes(grades, bases, rewards))


def talk(
    asker: Asker,
    grader: Grader,
    cases: Sequence[Case],
    bases: Sequence[float | None],
    rewards: Interval,
    most: str,
) -> Talk | None:
    """Returns what wrong answers gain by asking; None where no grade leaves room for a rise.

    `most` is the best that the judge can give, in the words of its reply.
    """
    width = rewards.high - rewards.low
    open_cases = [
        (case, base)
        for case, base in zip(cases, bases, strict=True)
        if base is not None and rewards.high - base >= ROOM * width
    ]
    asked = [
        Asked(tricked(case.answer, trick, most), case.item) for case, _ in open_cases for trick in TRICKS
    ]
    grades = asker.grade(grader, asked)
    rises = _changes(grades, [base for _, base in open_cases for _ in TRICKS], rewards, keeps_gaps=True)
    by_trick = {
        trick.name: math.fsum(known) / len(known)
        for place, trick in enumerate(TRICKS)
        if (known := [rise for rise in rises[place :: len(TRICKS)] if not math.isnan(rise)])
    }
    rise = mean([rise for rise in rises if not math.isnan(rise)])
    if rise is None:
        return None
    return Talk(rise, dict(sorted(by_trick.items(), key=lambda found: -found[1])))


def _changes(
    grades: Sequence[Grade | None],
    bases: Sequence[float | None],
    rewards: Interval,
    *,
    keeps_gaps: bool = False,
) -> list[float]:
    """Returns by how much each reward differs from its base, as shares of the range; gaps are left out, or
    NaN."""
    width = rewards.high - rewards.low
    found = []
    for grade, base in zip(grades, bases, strict=True):
        reward = reward_of(grade)
        if reward is not None and base is not None:
            found.append((reward - base) / width)
        elif keeps_gaps:
            found.append(math.nan)
    return found
