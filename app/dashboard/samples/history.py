"""Follows one prompt over the steps: which of its completions are shown, and the curve of its reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from app.dashboard.samples.queries import GroupTotal
from app.rollouts.service import Place

Chosen = Literal["best", "typical", "worst"]
WIDTH, HEIGHT, EDGE = 640, 140, 8
"""Of the curve, in units of its own."""


class Curve(NamedTuple):
    """A drawing of means by step, with the range from worst to best behind it.

    `line` and `band` are points of SVG; `low` and `high` are the rewards at the lower and upper edge.
    """

    line: str
    band: str
    dots: Sequence[tuple[float, float, int]]
    low: float
    high: float
    first: int
    last: int


def choose(
    rewards: Mapping[int, Mapping[int, float | None]],
    totals: Mapping[int, GroupTotal],
    row: int,
    which: Chosen,
) -> list[Place]:
    """Returns one completion of each step, the newest step first. `typical` is the one nearest to its group's
    mean; of those that failed the first stands for a group without a reward."""
    return [
        Place(step, row, _chosen(rewards[step], totals[step].mean, which))
        for step in sorted(rewards, reverse=True)
    ]


def _chosen(by_sample: Mapping[int, float | None], mean: float | None, which: Chosen) -> int:
    graded = {sample: reward for sample, reward in by_sample.items() if reward is not None}
    if not graded or mean is None:
        return min(by_sample)

    def rank(sample: int) -> tuple[float, int]:
        reward = graded[sample]
        return {"best": -reward, "worst": reward, "typical": abs(reward - mean)}[which], sample

    return min(graded, key=rank)


def curve(totals: Mapping[int, GroupTotal]) -> Curve | None:
    """Returns the curve of a row's reward; None with fewer than two steps that have one."""
    known = {step: one for step, one in totals.items() if one.mean is not None}
    if len(known) < 2:
        return None
    low = min(0.0, *(one.low or 0.0 for one in known.values()))
    high = max(1.0, *(one.high or 0.0 for one in known.values()))
    first, last = min(known), max(known)

    def point(step: int, reward: float | None) -> tuple[float, float]:
        x = EDGE + (WIDTH - 2 * EDGE) * (step - first) / (last - first)
        y = EDGE + (HEIGHT - 2 * EDGE) * (high - (reward or 0.0)) / (high - low)
        return round(x, 1), round(y, 1)

    means = [(*point(step, one.mean), step) for step, one in known.items()]
    upper = [point(step, one.high) for step, one in known.items()]
    lower = [point(step, one.low) for step, one in reversed(known.items())]
    return Curve(
        " ".join(f"{x},{y}" for x, y, _ in means),
        " ".join(f"{x},{y}" for x, y in [*upper, *lower]),
        means if len(means) <= 60 else (),
        low,
        high,
        first,
        last,
    )
