"""What a results file says of each run, in the few numbers that tables and bars are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.stability import results
from benchmarks.stability.datasets import nothing
from benchmarks.stability.plan import Run, plan

DELIVERED, LAST, BEST = "delivered", "last", "best"


@dataclass(frozen=True)
class Finding:
    """One run and what its evaluation found.

    Attributes:
        result: its line in the results file.
        model: which of its models is looked at.
    """

    run: Run
    result: dict[str, Any]
    model: str

    @property
    def base(self) -> dict[str, Any]:
        """What was found of the base."""
        found: dict[str, Any] = self.result["models"]["base"]
        return found

    @property
    def judged(self) -> dict[str, Any]:
        """What was found of the model; of the base where that is delivered."""
        return self.result["models"][self.model] or self.base

    @property
    def is_tuned(self) -> bool:
        """Whether another model than the base is delivered."""
        return self.result["models"][self.model] is not None

    @property
    def can_differ(self) -> bool:
        """Whether one answer can be worth more than another in this run."""
        return self.run.task.worth is not nothing

    @property
    def reward(self) -> float:
        """Mean worth on the test rows."""
        return fmean(self.judged["worth"])

    @property
    def base_reward(self) -> float:
        """The base's."""
        return fmean(self.base["worth"])

    def differences(self, of: str = "worth") -> list[float]:
        """Row by row, the model less the base."""
        return [a - b for a, b in zip(self.judged[of], self.base[of], strict=True)]

    @property
    def gain(self) -> float:
        """Mean worth above the base's."""
        return fmean(self.differences())

    @property
    def forgotten(self) -> float:
        """Loss on text of no job, above the base's, in nats per token."""
        return float(self.judged["canary"] - self.base["canary"])

    @property
    def acts(self) -> list[dict[str, Any]]:
        """What the guard did that changes the run."""
        return [one for one in self.result.get("actions", ()) if one["is_done"]]

    @property
    def claims_gain(self) -> bool:
        """Whether the job says that what it delivers is better than the base."""
        return str(self.result.get("verdict", "")).startswith("better")

    @property
    def rows(self) -> tuple[str, int]:
        """What runs share that have the same rows and random numbers."""
        return self.run.data.name, self.run.seed


def found_in(path: Path, parts: Sequence[str], model: str = DELIVERED) -> list[Finding]:
    """Returns the findings of a file's runs of these parts, in the plan's order; of a run that broke none."""
    kept = results.read(path)
    runs = [run for run in plan().values() if run.part in parts and run.id in kept]
    return [Finding(run, kept[run.id], model) for run in runs if "models" in kept[run.id]]


def broken_in(paths: Iterable[Path]) -> list[str]:
    """Returns the ids of runs without a result, each with what was said last."""
    every = (each for path in paths for each in results.read(path).values())
    return [
        f"{each['id']}: {each['status']}, {each['said'].strip().splitlines()[-1]}"
        for each in every
        if "models" not in each
    ]


def pairs(ours: Sequence[Finding], others: Sequence[Finding]) -> list[tuple[Finding, Finding]]:
    """Returns the findings of the same data set, rate and seed."""
    by_key = {(each.rows, each.run.rate): each for each in others}
    keyed = [(each, by_key.get((each.rows, each.run.rate))) for each in ours]
    return [(each, other) for each, other in keyed if other is not None]
