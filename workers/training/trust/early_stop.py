"""When evaluations have been level, so that more training is not worth its time.

The trend over the newer half of all evaluations is asked for, and level is what has none upwards. So a run
that has gained for long must be level for long before it ends, and a slow gain adds up before anything is
decided: docs/decisions/0028-early-stop.md has the trial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WITHOUT_GAIN = 1.5
"""Times the evaluations, for a run that has not gained anything yet. In the trial, runs that begin to gain
after six evaluations lost 0.1 to 0.3 of their reward without it, and nothing with it.
"""
SOLVED = 0.5
"""Times the evaluations, for a run whose training prompts are all solved. Chosen, not measured."""
GAINED = 2.0
"""Standard errors by which the newest evaluations must be above the base's to count as a gain: a convention.
"""
ROWS_FOR_A_SPREAD = 4
"""Rows from which on their spread says how sure a mean is. Chosen as `ROWS_FOR_AN_ERROR` was."""

ROUNDING = 1e-12
"""Share of the rewards' size up to which a trend is rounding. It follows from fp64, whose sums of a few
hundred rewards are exact to 1e-13 of their size.
"""

Array = NDArray[np.float64]


class Level(NamedTuple):
    """Says that evaluations were level.

    Attributes:
        evaluations: how many, the newest.
        mean: of their rows, in grader units.
        trend: from the first of them to the last, in grader units.
    """

    evaluations: int
    mean: float
    trend: float


def find_level(
    evaluations: Sequence[Sequence[float | None]], evals: int, *, least: float = 0.0, is_solved: bool = False
) -> Level | None:
    """Returns how level the newest evaluations are; None while there may still be a gain.

    Args:
        evaluations: the mean reward of each row, by evaluation, the base's first; None where there is none.
        evals: the run's `early_stop_evals`, the fewest whose trend is asked for.
        least: the difference of two rewards, in grader units, up to which it is taken for noise.
        is_solved: every training prompt is solved, so that there is nothing more to learn from: then half as
            many are enough.
    """
    if len(evaluations) <= 1:
        return None
    values = np.array(evaluations, dtype=float)  # None becomes nan
    fewest = _fewest(values, evals, is_solved=is_solved)
    newest = values[-fewest:]
    newest = newest[:, np.isfinite(newest).all(axis=0)]
    if len(newest) < fewest or newest.size == 0:
        return None
    trend = _slope(newest.mean(axis=1)) * (len(newest) - 1)
    noise = max(least, ROUNDING * float(np.abs(newest).max()))
    return Level(len(newest), float(newest.mean()), trend) if trend <= noise else None


def _fewest(values: Array, evals: int, *, is_solved: bool) -> int:
    """Returns over how many evaluations the trend is asked for."""
    half = math.ceil(SOLVED * evals)
    if is_solved:
        return half
    has_gained = _has_gained(values[-half:], values[0])
    return max(evals if has_gained else math.ceil(WITHOUT_GAIN * evals), math.ceil(len(values) / 2))


def _has_gained(newest: Array, base: Array) -> bool:
    """Whether the rows are above the base beyond noise."""
    differences = (newest - base).mean(axis=0)
    differences = differences[np.isfinite(differences)]
    if len(differences) == 0:
        return False
    is_sure = len(differences) >= ROWS_FOR_A_SPREAD
    stderr = differences.std(ddof=1) / np.sqrt(len(differences)) if is_sure else 0.0
    return bool(differences.mean() > GAINED * stderr)


def _slope(means: Array) -> float:
    """Returns the least-squares slope, in grader units an evaluation."""
    places = np.arange(len(means)) - (len(means) - 1) / 2
    return float(places @ means / (places**2).sum())
