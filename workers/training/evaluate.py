"""Measurements of a policy: its reward on the rows that it is judged by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from graders import Grade
from workers.training.base.types import Group, Split

ROWS_FOR_AN_ERROR = 4
"""Validation rows from which on it is said how sure their mean is. Of three rows all differences have the
same sign in one case of four by luck alone, and three equal ones would seem certain: a sign-flip test claims
nothing from three (its smallest p is 1/8, in the trial of selections).
"""


class Estimate(NamedTuple):
    """Holds a mean and its standard error; None where there are too few values to know it."""

    mean: float
    stderr: float | None
    n: int


def row_rewards(groups: Sequence[Group]) -> list[float | None]:
    """Returns the mean reward of each validation row, in grader units; None where no completion has one."""
    rows: list[float | None] = []
    for group in groups:
        found = [reward for grade in group.grades if (reward := grade.reward) is not None]
        rows.append(math.fsum(found) / len(found) if found else None)
    return rows


def estimate(values: Sequence[float | None], known_from: int = 2) -> Estimate | None:
    """Returns mean and standard error over the values that are there; None without any.

    The error is not known of fewer than `known_from` values.
    """
    found = [value for value in values if value is not None]
    if not found:
        return None
    mean = math.fsum(found) / len(found)
    if len(found) < known_from:
        return Estimate(mean, None, len(found))
    variance = math.fsum((value - mean) ** 2 for value in found) / (len(found) - 1)
    return Estimate(mean, math.sqrt(variance / len(found)), len(found))


def mean_of_rows(rows: Sequence[float | None]) -> Estimate | None:
    """Returns the mean reward of validation rows; None without any."""
    return estimate(rows, known_from=ROWS_FOR_AN_ERROR)


@dataclass(frozen=True)
class Evaluation:
    """Holds the graded completions of each split of one evaluation; `judging` is the one that decides."""

    groups: Mapping[Split, list[Group]]
    judging: Split

    @property
    def grades(self) -> list[Grade]:
        """Returns all grades."""
        return [grade for groups in self.groups.values() for group in groups for grade in group.grades]

    @property
    def rows(self) -> list[float | None]:
        """Returns what checkpoints are judged by: a reward for each validation row, or fresh completion."""
        groups = self.groups[self.judging]
        if self.judging == "valid":
            return row_rewards(groups)
        return [grade.reward for group in groups for grade in group.grades]

    def reward(self, split: Split) -> Estimate | None:
        """Returns the mean reward of a split's rows; None if it has none, or none was graded."""
        return mean_of_rows(row_rewards(self.groups.get(split, [])))
