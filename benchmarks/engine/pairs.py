"""Run both sides in turns within one process."""

from __future__ import annotations

import gc
from typing import NamedTuple

from benchmarks.engine.ours import Ours
from benchmarks.engine.setup import Setup
from benchmarks.engine.stock import Stock
from benchmarks.engine.timing import StepCost


class Pairs(NamedTuple):
    """Steps of both sides, in order; the n-th of each had the same prompts. The first pair warmed up."""

    stock: list[StepCost]
    ours: list[StepCost]

    def measured(self) -> Pairs:
        """Without the warm-up."""
        return Pairs(self.stock[1:], self.ours[1:])


def run_pairs(setup: Setup) -> Pairs:
    """`setup.steps` steps of each side; the order within a pair alternates.

    Stock trains all along; ours steps in its callback: stock 0, ours 0, ours 1, stock 1, stock 2, ours 2, ...
    """
    stock = Stock(setup)
    found = Pairs([], [])
    with Ours(setup) as ours:

        def in_between(step: int, cost: StepCost) -> None:
            found.stock.append(cost)
            if step % 2 == 0:
                _check_same_prompts(stock, ours, step)
                gc.collect()
                found.ours.append(ours.step(step))
                if step + 1 < setup.steps:
                    found.ours.append(ours.step(step + 1))
            gc.collect()

        stock.train(in_between)
    return found


def _check_same_prompts(stock: Stock, ours: Ours, step: int) -> None:
    G = ours.setup.workload.group
    mine = [list(ours.prompts[row].tokens) for row in ours.setup.rows_of_step(ours.rows, step)]
    if stock.prompt_ids != [prompt for prompt in mine for _ in range(G)]:
        raise AssertionError(f"The two sides were given different prompts at step {step}.")
