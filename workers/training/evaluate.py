"""Measurements of a policy: its validation reward against the base's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from methods.train_config import TrainConfig
from workers.training.base.types import Group
from workers.training.model.grammar import Grammar
from workers.training.sampling.rollout import Sampling

CONFIDENCE_Z = 1.6448536269514722
"""The normal quantile of a one-sided 95 % bound: a convention, not a measurement."""


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


def validation_sampling(config: TrainConfig, grammar: Grammar | None = None) -> Sampling:
    """Returns how validation samples: greedily, or with the same random numbers every time.

    One sample a row is greedy; several are drawn.
    """
    return Sampling(
        samples=config.eval_samples,
        max_tokens=config.max_completion_tokens,
        temperature=0.0 if config.eval_samples == 1 else config.temperature,
        key=("valid", config.seed),
        stop=config.stop,
        grammar=grammar,
    )


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


def paired_difference(rows: Sequence[float | None], base: Sequence[float | None]) -> Estimate | None:
    """Returns how much better than the base the rows are, over those that both have a reward for."""
    pairs = zip(rows, base, strict=True)
    return mean_of_rows([None if a is None or b is None else a - b for a, b in pairs])


def lower_bound(found: Estimate) -> float | None:
    """Returns the one-sided 95 % lower confidence bound by Student's t.

    It is None for too few rows, which prove nothing.
    """
    if found.stderr is None:
        return None
    return found.mean - t_quantile(found.n - 1) * found.stderr


def t_quantile(dof: int) -> float:
    """Returns the 95 % quantile of Student's t: exact for 1 and 2 degrees of freedom, else within 0.01.

    Source: Abramowitz and Stegun 1964, 26.7.5 (expansion around the normal quantile).
    """
    if dof <= 2:
        return (6.313751514675041, 2.919985580355516)[dof - 1]
    z = CONFIDENCE_Z
    terms: tuple[float, ...] = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + math.fsum(term / dof**i for i, term in enumerate(terms, 1))
