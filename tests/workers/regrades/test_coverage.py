"""Intervals hold the true number as often as they say: over data rows they do, over completions not."""

from __future__ import annotations

import numpy as np
import pytest

from workers.regrades.comparing import Array, Side, compare

ROWS, EACH = 40, 8
TRIALS = 200
ALL = 400_000
"""Rows that stand for all there are."""


def judged(random: np.random.Generator, n_rows: int, each: int) -> tuple[Array, Array]:
    """Pass or fail by two graders: completions of a row share its difficulty, and what one grader sees
    in it."""
    difficulty, bias = random.normal(0, 1.5, (n_rows, 1)), random.normal(0, 1, (n_rows, 1))
    first = difficulty + random.normal(0, 1, (n_rows, each)) > 0
    second = difficulty + bias + random.normal(0, 1, (n_rows, each)) > 0
    return first.astype(float).ravel(), second.astype(float).ravel()


@pytest.mark.long
def test_intervals_over_rows_hold_what_they_promise() -> None:
    random = np.random.default_rng(1)
    first, second = judged(random, ALL, 2)
    agreement, correlation = float((first == second).mean()), float(np.corrcoef(first, second)[0, 1])
    by_row = [f"row-{n // EACH}" for n in range(ROWS * EACH)]
    each_alone = [f"one-{n}" for n in range(ROWS * EACH)]
    held = {"agreement": 0, "rank_correlation": 0, "as if independent": 0}
    for trial in range(TRIALS):
        sides = [Side(rewards, 0.5, (0.0, 1.0)) for rewards in judged(random, ROWS, EACH)]
        told = compare(*sides, by_row, seed=trial).told
        alone = compare(*sides, each_alone, seed=trial).told["agreement"]
        held["agreement"] += told["agreement"]["low"] <= agreement <= told["agreement"]["high"]
        ranks = told["rank_correlation"]
        held["rank_correlation"] += ranks["low"] <= correlation <= ranks["high"]
        held["as if independent"] += alone["low"] <= agreement <= alone["high"]
    # 90 % is three standard errors (1.5 %) below what is promised
    assert held["agreement"] / TRIALS >= 0.9
    assert held["rank_correlation"] / TRIALS >= 0.9
    assert held["as if independent"] / TRIALS < 0.85
