"""Holds each long job to the short one beside it, and writes the table of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from benchmarks.long_runs.plan import LONG, SHORT, pairs
from benchmarks.stability import results
from benchmarks.stability.findings import Finding
from benchmarks.stability.report import table
from benchmarks.stability.statistics import Interval, clustered, holm, interval, worse_p

MOST_FORGOTTEN = 0.3
"""Nats per token on text of no job: the issue's."""


class Comparison(NamedTuple):
    """A long job's delivered model beside the short one's, on rows that neither has seen."""

    short: Finding
    long: Finding

    @property
    def differences(self) -> list[float]:
        """Row by row, the long job's model less the short one's."""
        return [a - b for a, b in zip(self.long.judged["worth"], self.short.judged["worth"], strict=True)]

    @property
    def difference(self) -> Interval:
        """Their mean, and how sure it is."""
        return interval(self.differences)

    @property
    def faults(self) -> list[str]:
        """What misses the bar, in words; nothing where the bar is met."""
        found, target = self.difference, self.long.result["kl_target"]
        said = {
            "reward": found.mean < -found.stderr,
            "KL": self.long.judged["kl"] > target > 0,
            "canary": self.long.forgotten > MOST_FORGOTTEN,
        }
        return [name for name, is_missed in said.items() if is_missed]


def compared_in(path: Path) -> list[Comparison]:
    """Returns the pairs of a results file of which both jobs have a result."""
    kept = {key: each for key, each in results.read(path).items() if "models" in each}
    return [
        Comparison(*(Finding(run, kept[run.id], "delivered") for run in pair))
        for pair in pairs()
        if all(run.id in kept for run in pair)
    ]


def text_of(path: Path) -> str:
    """Returns the table of a results file, and what holds over all pairs."""
    found = compared_in(path)
    if not found:
        return "No pair is whole yet."
    names = ("task", "seed", "base", f"{SHORT} epochs", f"{LONG} epochs", "difference", "KL (target)")
    more = ("forgot", "step of", "visits", "guard", "beta, most", "CPU s", "bar")
    return "\n\n".join((table((*names, *more), [_line(each) for each in found]), _together(found)))


def _line(pair: Comparison) -> Sequence[str]:
    short, long, found = pair.short, pair.long, pair.difference
    return (
        long.run.data.title,
        str(long.run.seed),
        f"{long.base_reward:.3f}",
        f"{short.reward:.3f}",
        f"{long.reward:.3f}",
        f"{found.mean:+.3f} +- {found.stderr:.3f}",
        f"{long.judged['kl']:.3f} ({long.result['kl_target']:.3f})",
        f"{long.forgotten:+.2f}",
        f"{long.result['best_step']} of {long.result['steps']}",
        f"{_visited(long.result):.0%}",
        str(len(long.acts)),
        f"{max((point['beta'] for point in long.result['curve']), default=0.0):.2g}",
        f"{long.result['cpu_seconds']:.0f}",
        ", ".join(f"**{fault}**" for fault in pair.faults) or "met",
    )


def _visited(result: Mapping[str, Any]) -> float:
    """The share of a full step's completions that a step has sampled, on average."""
    steps = result["steps"]
    return float(result["completions"] / (result["full_step"] * steps)) if steps else 0.0


def _together(found: Sequence[Comparison]) -> str:
    """The difference over all pairs, by pair, and how many long jobs are worse beyond luck."""
    every = [each for pair in found for each in pair.differences]
    pair_of = [i for i, pair in enumerate(found) for _ in pair.differences]
    mean = clustered(every, pair_of)
    worse = sum(holm([worse_p(pair.differences) for pair in found]))
    missed = sum(bool(pair.faults) for pair in found)
    kl = fmean(pair.long.judged["kl"] for pair in found)
    return (
        f"Over all {len(found)} pairs: {mean.mean:+.4f} +- {mean.stderr:.4f} ({mean.low:+.3f} to"
        f" {mean.high:+.3f}); {worse} of the long jobs' models are worse beyond luck (5 %, Holm); {missed}"
        f" pairs miss the bar of a single pair, which luck alone misses in 16 of 100; mean KL {kl:.3f}."
    )
