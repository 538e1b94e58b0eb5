"""Compares what two graders gave to the same completions: agreement, ranks, and where they differ.

Completions of one prompt are no independent observations, so that intervals come from a bootstrap over
prompts (data rows), not over completions: Efron and Tibshirani 1993, An Introduction to the Bootstrap,
section 8.3. The correlation is Spearman's, with mean ranks for ties: rewards have many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
"""How sure intervals are: a convention, not a measurement."""
RESAMPLES = 1000
"""Bootstrap samples. Chosen, not measured: the ends of a 95 % interval then lie between the 15th and the 35th
sample from either end, at two standard errors."""
LEAST_RESAMPLES = 200
MOST_DRAWN = 20_000_000
"""Completions that all samples hold together, from which on there are fewer samples. Chosen, not measured."""
LEAST_ROWS = 10
"""Data rows from which on there are intervals. Chosen: of fewer a bootstrap has too few different samples."""
SHOWN_ROWS = 20
"""Data rows that are told, those first in which the graders differ most. Chosen, not measured."""

Array = NDArray[np.float64]
Weighted = Callable[[Array], float]
"""A number of all pairs, each counted so many times; nan where it is not defined."""


class Side(NamedTuple):
    """One grader's rewards, nan where there is none; the reward from which it lets pass; its range, if it is
    known."""

    rewards: Array
    passes_from: float
    range: tuple[float, float] | None

    def shares(self) -> Array:
        """Returns the rewards as shares of the grader's range; of one that is not known, of the rewards'."""
        there = self.rewards[np.isfinite(self.rewards)]
        low, high = self.range or ((there.min(), there.max()) if len(there) else (0.0, 1.0))
        return (self.rewards - low) / (high - low if high > low else 1.0)


class Comparison(NamedTuple):
    """What is told, and the difference of each completion: after minus before, nan where one is missing."""

    told: dict[str, Any]
    differences: Array


def compare(before: Side, after: Side, data_rows: Sequence[str], seed: int = 0) -> Comparison:
    """Compares two graders over the same completions, each of which belongs to a data row.

    The same arguments give the same numbers.
    """
    both = np.isfinite(before.rewards) & np.isfinite(after.rewards)
    differences = after.shares() - before.shares()
    told: dict[str, Any] = {
        "completions": len(both),
        "compared": int(both.sum()),
        "before": _alone(before),
        "after": _alone(after),
    }
    if both.any():
        names, row = np.unique(np.asarray(data_rows)[both], return_inverse=True)
        pairs = _Pairs(before, after, both, differences[both])
        told |= {"data_rows": len(names), **pairs.told(row, len(names), seed)}
        told["rows_that_differ_most"] = pairs.rows(names, row)
    return Comparison(told, differences)


class _Pairs:
    """Completions that have both rewards."""

    def __init__(self, before: Side, after: Side, both: NDArray[np.bool_], differences: Array) -> None:
        self._rewards = before.rewards[both], after.rewards[both]
        self._passed = self._rewards[0] >= before.passes_from, self._rewards[1] >= after.passes_from
        self._differences = differences
        self._agree = (self._passed[0] == self._passed[1]).astype(float)
        self._levels = [np.unique(rewards, return_inverse=True)[1] for rewards in self._rewards]

    def told(self, row: NDArray[np.intp], n_rows: int, seed: int) -> dict[str, Any]:
        first, second = self._passed
        numbers: dict[str, Weighted] = {
            "agreement": self._agreement,
            "kappa": self._kappa,
            "rank_correlation": self._rank_correlation,
            "mean_difference": self._mean_difference,
        }
        weights = _resamples(row, n_rows, seed)
        once = np.ones(len(row))
        found = {name: number(once) for name, number in numbers.items()}
        drawn: dict[str, list[float]] = {name: [] for name in numbers}
        for weight in weights:
            for name, number in numbers.items():
                drawn[name].append(number(weight))
        return {
            "passes": {
                "both": int((first & second).sum()),
                "before_only": int((first & ~second).sum()),
                "after_only": int((~first & second).sum()),
                "neither": int((~first & ~second).sum()),
            },
            **{name: _estimate(found[name], drawn[name]) for name in numbers},
        }

    def rows(self, names: NDArray[np.str_], row: NDArray[np.intp]) -> list[dict[str, Any]]:
        """Returns the data rows whose mean differences are largest, with the graders' mean rewards."""
        counts = np.bincount(row)
        before, after = (np.bincount(row, rewards) / counts for rewards in self._rewards)
        difference = np.bincount(row, self._differences) / counts
        order = np.lexsort((names, -np.abs(difference)))[:SHOWN_ROWS]
        return [
            {
                "data_row": str(names[i]),
                "completions": int(counts[i]),
                "before": float(before[i]),
                "after": float(after[i]),
                "difference": float(difference[i]),
            }
            for i in order
            if difference[i]
        ]

    def _agreement(self, weight: Array) -> float:
        return float(np.average(self._agree, weights=weight))

    def _mean_difference(self, weight: Array) -> float:
        return float(np.average(self._differences, weights=weight))

    def _kappa(self, weight: Array) -> float:
        """Returns Cohen's kappa: agreement beyond what chance would give, 1 at most.

        It is made of whole numbers, so that a grader which always says the same has exactly 0.
        """
        before, after = self._passed
        n, p, q = float(weight.sum()), float(weight @ before), float(weight @ after)
        agreed, by_chance = n * float(weight @ (before == after)), p * q + (n - p) * (n - q)
        return (agreed - by_chance) / (n * n - by_chance) if by_chance < n * n else float("nan")

    def _rank_correlation(self, weight: Array) -> float:
        ranks = [_mean_ranks(level, weight) for level in self._levels]
        x, y = (rank - np.average(rank, weights=weight) for rank in ranks)
        spread = np.average(x * x, weights=weight) * np.average(y * y, weights=weight)
        return float(np.average(x * y, weights=weight) / np.sqrt(spread)) if spread > 0 else float("nan")


def _mean_ranks(level: NDArray[np.intp], weight: Array) -> Array:
    """Returns the rank of each of some values, the mean of those it shares, where each counts so often."""
    counts = np.bincount(level, weight)
    return (np.cumsum(counts) - counts / 2 + 0.5)[level]


def _resamples(row: NDArray[np.intp], n_rows: int, seed: int) -> list[Array]:
    """Returns how often each completion is in each bootstrap sample of data rows."""
    if n_rows < LEAST_ROWS:
        return []
    n = min(RESAMPLES, max(LEAST_RESAMPLES, MOST_DRAWN // len(row)))
    random = np.random.default_rng(seed)
    return [random.multinomial(n_rows, np.full(n_rows, 1 / n_rows))[row].astype(float) for _ in range(n)]


def _estimate(value: float, drawn: Sequence[float]) -> dict[str, float | None]:
    """Returns a number with its percentile interval, null where there is none."""
    known = [each for each in drawn if np.isfinite(each)]
    low = high = None
    if np.isfinite(value) and len(known) >= LEAST_RESAMPLES:
        low, high = (float(end) for end in np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return {"value": value if np.isfinite(value) else None, "low": low, "high": high}


def _alone(side: Side) -> dict[str, Any]:
    there = side.rewards[np.isfinite(side.rewards)]
    return {
        "graded": len(there),
        "mean_reward": float(there.mean()) if len(there) else None,
        "passes_from": side.passes_from,
        "passed": int((there >= side.passes_from).sum()),
    }
