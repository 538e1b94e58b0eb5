"""Reads the curves of a job and makes of them what a page draws: points, intervals, marks of the guard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.cards.points import NORMAL_95
from app.dashboard.job import queries
from app.dashboard.job.catalogue import Chart, Curve, charts_of
from app.dashboard.thinning import kept
from app.jobs.models import Job
from methods import metrics as names

DIGITS = 6
ARMS = (names.ARM_SEED, names.ARM_STEP, names.ARM_IS_CONTROL)

Columns = Mapping[str, Sequence[float | None]]


def curves(db: Session, job: Job, since: int = -1) -> dict[str, Any]:
    """Returns what a page draws of the steps behind `since`.

    `last` is the newest step read, from which a page asks on. `whole` tells that the page must ask for
    everything each time: runs side by side do not tell their steps in order.
    """
    known = queries.known_metrics(db, job.id)
    has_arms = names.ARM_SEED in known
    if has_arms:
        since = -1
    charts = charts_of(known)
    wanted = {name for chart in charts for curve in chart.curves for name in curve.metrics() if name in known}
    wanted |= {name for name in ARMS if name in known}
    steps, columns = queries.columns(db, job.id, sorted(wanted), since)
    prompts = (job.config or {}).get("prompts_per_step")
    drawn = [_drawn(chart, steps, columns, prompts) for chart in charts]
    if has_arms:
        drawn[1:1] = _by_seed(steps, columns)
    return {
        "last": steps[-1] if steps else since,
        "whole": has_arms,
        "charts": [chart for chart in drawn if chart["curves"]],
        "marks": [{"step": step, "text": text} for step, text in queries.guard_actions(db, job.id)],
    }


def _drawn(chart: Chart, steps: Sequence[int], columns: Columns, prompts: int | None) -> dict[str, Any]:
    lines = [line for curve in chart.curves if (line := _line(curve, steps, columns, prompts))]
    if chart.may_be_idle and not any(value for line in lines for value in line["values"]):
        lines = []
    left_out = f"{chart.left_out} more are in the job's metrics." if chart.left_out else ""
    return {
        "key": chart.key,
        "title": chart.title,
        "unit": chart.unit,
        "hint": f"{chart.hint} {left_out}".strip(),
        "axis": "step",
        "curves": lines,
    }


def _line(curve: Curve, steps: Sequence[int], columns: Columns, prompts: int | None) -> dict[str, Any] | None:
    """Returns the points of a curve, and the ends of its interval where it has one."""
    column = columns[curve.name]
    there: Sequence[int] = range(len(column))
    if None in column:
        there = [place for place, value in enumerate(column) if value is not None]
    values = [value for value in column if value is not None]
    if not values:
        return None
    places = kept(values)
    own = [there[place] for place in places]
    means = [values[place] for place in places]
    line: dict[str, Any] = {
        "label": curve.label,
        "steps": [steps[place] for place in own],
        "values": _short(means),
    }
    low, high = _bounds(curve, means, own, columns, prompts)
    if any(bound is not None for bound in low):
        line |= {"low": _short(low), "high": _short(high)}
    return line


def _bounds(
    curve: Curve, means: Sequence[float], own: Sequence[int], columns: Columns, prompts: int | None
) -> tuple[list[float | None], list[float | None]]:
    """Returns the ends of the intervals of some points; None where they are not known."""

    def at(name: str | None) -> list[float | None]:
        column = columns.get(name) if name is not None else None
        return [None] * len(own) if column is None else [column[place] for place in own]

    if curve.low and curve.high:
        return at(curve.low), at(curve.high)
    scale, errors = NORMAL_95, at(curve.error)
    if curve.spread and prompts is not None and prompts > 1:
        scale, errors = NORMAL_95 / math.sqrt(prompts), at(curve.spread)
    both = list(zip(means, errors, strict=True))
    low = [None if error is None else mean - scale * error for mean, error in both]
    return low, [None if error is None else mean + scale * error for mean, error in both]


def _by_seed(steps: Sequence[int], columns: Columns) -> list[dict[str, Any]]:
    """Returns a chart in which the runs of a job's seeds lie over each other, by their own steps."""
    seeds, own_steps = columns[names.ARM_SEED], columns.get(names.ARM_STEP, steps)
    controls = columns.get(names.ARM_IS_CONTROL, [None] * len(steps))
    found: dict[str, dict[int, float]] = {}
    valid = columns.get(names.VALID_REWARD_MEAN, [])
    name = names.VALID_REWARD_MEAN if sum(v is not None for v in valid) > 1 else names.REWARD_MEAN
    for seed, step, control, value in zip(
        seeds, own_steps, controls, columns.get(name, [None] * len(steps)), strict=True
    ):
        if None not in (seed, step, value):
            label = f"{'control, ' if control else ''}seed {seed:.0f}"
            found.setdefault(label, {})[int(step or 0)] = value or 0.0
    lines = []
    for label, points in sorted(found.items()):
        ordered = sorted(points.items())
        places = kept([value for _, value in ordered])
        lines.append(
            {
                "label": label,
                "steps": [ordered[place][0] for place in places],
                "values": _short([ordered[place][1] for place in places]),
            }
        )
    what = "validation" if name == names.VALID_REWARD_MEAN else "training"
    hint = "Each seed by its own steps. In the other charts the job counts the steps of all seeds."
    common = {"unit": "grader units", "hint": hint, "axis": "arm", "curves": lines}
    return [{"key": "seeds", "title": f"Reward of each seed, {what}", **common}]


def _short(values: Sequence[float | None]) -> list[float | None]:
    """Rounds to what a page can show: a third of the bytes. All are written at once, as that is quicker."""
    known = [value for value in values if value is not None]
    rounded = map(float, (f"%.{DIGITS}g " * len(known) % tuple(known)).split())
    if len(known) == len(values):
        return list(rounded)
    return [None if value is None else next(rounded) for value in values]
