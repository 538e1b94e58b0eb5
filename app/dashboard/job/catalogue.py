"""Says which curves of a job are drawn together, under which title, and what their intervals are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from methods import metrics as names

MOST_LINES = 10
"""Lines of one chart that can still be told apart."""


class Curve(NamedTuple):
    """One line of a chart.

    Attributes:
        name: of its metric.
        error: the metric of its standard error, from which it gets a 95 % interval.
        spread: the metric of the standard deviation of what it is the mean of, in place of an error.
        low, high: the metrics of an interval's ends, in place of either.
    """

    name: str
    label: str
    error: str | None = None
    spread: str | None = None
    low: str | None = None
    high: str | None = None

    def metrics(self) -> Iterator[str]:
        return (name for name in (self.name, self.error, self.spread, self.low, self.high) if name)


@dataclass(frozen=True)
class Chart:
    """Curves of one unit that are drawn together. `hint` says how to read them.

    A chart that `may_be_idle` is shown only where one of its values is not 0.
    """

    key: str
    title: str
    unit: str
    curves: Sequence[Curve]
    hint: str = ""
    may_be_idle: bool = False
    left_out: int = field(default=0)
    """Curves that there was no room for."""


def _both(name: str, *, valid: str = "valid") -> list[Curve]:
    return [
        Curve(name.format(split="train"), "training"),
        Curve(name.format(split=valid), "validation"),
    ]


CHARTS = (
    Chart(
        "reward",
        "Reward",
        "grader units",
        [
            Curve(names.REWARD_MEAN, "training", spread=names.REWARD_STD),
            Curve(names.VALID_REWARD_MEAN, "validation", error=names.VALID_REWARD_STDERR),
            Curve(names.FRESH_REWARD_MEAN, "training rows, sampled afresh", error=names.FRESH_REWARD_STDERR),
        ],
        "Each step trains on other prompts, so validation is what steps are compared by. Bands are 95 % "
        "intervals; that of training is as wide as if all completions of a prompt were alike.",
    ),
    Chart(
        "loss",
        "Loss",
        "nats",
        [
            *_both(names.LOSS, valid="full_valid"),
            Curve(names.LOSS.format(split="valid"), "validation, a batch"),
        ],
        "Validation that rises while training falls means that the job learns its rows by heart.",
    ),
    Chart("accuracy", "Accuracy", "share", _both(names.ACCURACY, valid="full_valid")),
    Chart(
        "margin",
        "Margin between preferred and other",
        "nats",
        [
            Curve(names.DPO_REWARD_MARGIN, "training"),
            Curve(names.DPO_VALID_REWARD_MARGIN.format(split="full_valid"), "validation"),
        ],
        "It should rise, and stay above 0.",
    ),
    Chart(
        "preferred",
        "Reward of preferred and other",
        "nats",
        [Curve(names.DPO_REWARD_CHOSEN, "preferred"), Curve(names.DPO_REWARD_REJECTED, "other")],
        "Both below 0 and falling means that the model becomes less sure of either.",
    ),
    Chart(
        "pairs",
        "Pairs put in the right order",
        "share",
        [
            Curve(names.DPO_REWARD_ACCURACY, "training"),
            Curve(names.DPO_VALID_REWARD_ACCURACY.format(split="full_valid"), "validation"),
        ],
    ),
    Chart(
        "gold",
        "Gap to the gold grader",
        "share of range",
        [Curve(names.GOLD_GAP, "gap", low=names.GOLD_GAP_LOW, high=names.GOLD_GAP_HIGH)],
        "Above 0, the reward has gained more than what it stands for.",
    ),
    Chart(
        "kl",
        "KL to the start",
        "nats per token",
        [
            Curve(names.KL_PROBE_MEAN, "probe set", error=names.KL_PROBE_STDERR),
            Curve(names.KL_REFERENCE, "batch, estimated"),
            Curve(names.GUARD_KL_LIMIT, "limit of the guard"),
        ],
        "How far the model has moved from where it began.",
    ),
    Chart(
        "entropy",
        "Entropy",
        "nats per token",
        [Curve(names.ENTROPY_MEAN, "training")],
        "Near 0 the model writes the same to each prompt, and finds nothing new.",
    ),
    Chart(
        "length",
        "Length of completions",
        "tokens",
        [
            *_both(names.COMPLETION_TOKENS_MEAN),
            Curve(names.COMPLETION_TOKENS_MAX.format(split="train"), "longest in training"),
        ],
    ),
    Chart("thoughts", "Thoughts", "tokens", _both(names.REASONING_TOKENS_MEAN), may_be_idle=True),
    Chart(
        "spread",
        "Groups without spread",
        "share",
        [Curve(names.NO_SPREAD_SHARE, "training")],
        "Prompts whose completions all have one reward: they teach nothing.",
    ),
    Chart(
        "faults",
        "Completions with a fault",
        "share",
        [
            Curve(names.TRUNCATED_SHARE.format(split="train"), "cut at the limit"),
            Curve(names.PARSE_ERROR_SHARE.format(split="train"), "not parsed"),
            Curve(names.UNGRADED_SHARE.format(split="train"), "without a grade"),
        ],
        may_be_idle=True,
    ),
    Chart(
        "clip",
        "Clipped tokens",
        "share",
        [
            Curve(names.CLIPPED_SHARE, "at either bound"),
            Curve(names.CLIPPED_LOW_SHARE, "at the lower bound"),
            Curve(names.IMPORTANCE_TRUNCATED_SHARE, "importance capped"),
        ],
        may_be_idle=True,
    ),
    Chart("turns", "Turns of an episode", "count", _both(names.EPISODE_TURNS), may_be_idle=True),
    Chart(
        "canary",
        "Loss on unrelated text, over the base",
        "nats per token",
        [Curve(names.CANARY_OVER_BASE, "canary", error=names.CANARY_OVER_BASE_STDERR)],
        "Above 0, the model has forgotten something that has nothing to do with the task.",
    ),
    Chart("gradient", "Norm of the gradient", "", [Curve(names.GRAD_NORM, "before clipping")]),
)
PATTERNS = (
    ("parts-train", "Parts of the grade, training", "grader units", names.PART_MEAN, "train"),
    ("parts-valid", "Parts of the grade, validation", "grader units", names.PART_MEAN, "valid"),
    ("tools", "Calls of tools, training", "calls an episode", names.TOOL_CALLS, "train"),
)
"""Charts of curves that have names of their own: the fields and sub-graders of a grader, and tools."""


def charts_of(known: Collection[str]) -> list[Chart]:
    """Returns the charts that can be drawn of the metrics that a job has, each with its known curves only."""
    found = {}
    for chart in CHARTS:
        curves = [curve for curve in chart.curves if curve.name in known]
        if curves:
            found[chart.key] = Chart(**{**chart.__dict__, "curves": curves})
    named = {chart.key: chart for chart in _of_patterns(known)}
    first = [found.pop(key) for key in ("reward",) if key in found]
    return [*first, *named.values(), *found.values()]


def _of_patterns(known: Collection[str]) -> Iterator[Chart]:
    for key, title, unit, pattern, split in PATTERNS:
        before = pattern.format(split=split, part="", tool="")
        names_of = sorted(name for name in known if name.startswith(before))
        shown = (
            names_of if len(names_of) <= MOST_LINES else [n for n in names_of if "." not in n[len(before) :]]
        )
        curves = [Curve(name, name[len(before) :]) for name in shown[:MOST_LINES]]
        if curves:
            yield Chart(key, title, unit, curves, left_out=len(names_of) - len(curves))
