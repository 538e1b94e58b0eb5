"""What a run may spend: time, sampled tokens, calls of graders' models, and money."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from graders import TokenUsage
from methods.train_config import TrainConfig

Budget = str
"""A field of the config: `max_seconds`, `max_sampled_tokens`, `max_judge_calls` or `max_cost`."""

NAMES: Mapping[Budget, str] = {
    "max_seconds": "seconds of training",
    "max_sampled_tokens": "sampled tokens",
    "max_judge_calls": "calls of graders' models",
    "max_cost": "of cost",
}
"""What each budget counts, in words."""


class SpentBudget(NamedTuple):
    """Names a budget that is used up.

    Attributes:
        name: the field of the config.
        limit: what may be spent, in the budget's own unit.
        spent: what was, since the run began or went on after a pause for the same budget.
        unit: in words.
    """

    name: Budget
    limit: float
    spent: float
    unit: str

    def __str__(self) -> str:
        return f"{self.name} is used up: {self.spent:,.6g} of {self.limit:,.6g} {self.unit}"


def spent_so_far(
    config: TrainConfig, *, seconds: float, sampled_tokens: int, usage: Mapping[str, TokenUsage]
) -> dict[Budget, float]:
    """Returns what a run has spent of each budget since it began; the cost only where there are prices."""
    spent: dict[Budget, float] = {
        "max_seconds": seconds,
        "max_sampled_tokens": sampled_tokens,
        "max_judge_calls": sum(tokens.calls for tokens in usage.values()),
    }
    if config.prices is not None:
        spent["max_cost"] = config.prices.cost(usage, seconds * config.processes)
    return spent


def find_spent_budget(
    config: TrainConfig, spent: Mapping[Budget, float], spent_before: Mapping[Budget, float]
) -> SpentBudget | None:
    """Returns the first budget that is used up, if any.

    `spent_before` is what had been spent when the run paused for a budget: going on grants each budget anew.
    """
    for name, unit in NAMES.items():
        limit = getattr(config, name)
        if limit is None or name not in spent:
            continue
        since = spent[name] - spent_before.get(name, 0.0)
        if since >= limit:
            return SpentBudget(name, limit, since, _unit(config, name, unit))
    return None


def _unit(config: TrainConfig, name: Budget, unit: str) -> str:
    return config.prices.currency if name == "max_cost" and config.prices is not None else unit
