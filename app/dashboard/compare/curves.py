"""Reads curves of jobs for drawing them over each other, with no more points than a chart can show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.dashboard.thinning import kept
from app.events.models import JobMetrics
from methods import metrics as names

Points = list[tuple[int, float]]


class Curve(NamedTuple):
    """A curve that jobs can have: its heading, and the metric."""

    title: str
    metric: str


CURVES = (
    Curve("Validation reward", names.VALID_REWARD_MEAN),
    Curve("Training reward", names.REWARD_MEAN),
    Curve("Validation loss", names.LOSS.format(split="full_valid")),
    Curve("Training loss", names.LOSS.format(split="train")),
    Curve("KL to base, nats/token", names.KL_PROBE_MEAN),
    Curve("Entropy, nats/token", names.ENTROPY_MEAN),
    Curve("Completion length, tokens", names.COMPLETION_TOKENS_MEAN.format(split="train")),
)


class Drawn(NamedTuple):
    """One chart: its heading, and the points of each job, in the order of the jobs."""

    title: str
    lines: list[Points]


def charts(db: Session, job_ids: Sequence[str]) -> list[Drawn]:
    """Returns the charts in which any of the jobs has a point."""
    found = [_curves(db, job_id) for job_id in job_ids]
    drawn = [
        Drawn(curve.title, [_thinned(of_job[number]) for of_job in found])
        for number, curve in enumerate(CURVES)
    ]
    return [chart for chart in drawn if any(chart.lines)]


def _curves(db: Session, job_id: str) -> list[Points]:
    columns = (JobMetrics.values[curve.metric].as_float() for curve in CURVES)
    rows = db.execute(
        select(JobMetrics.step, *columns).where(JobMetrics.job_id == job_id).order_by(JobMetrics.step)
    )
    curves: list[Points] = [[] for _ in CURVES]
    for step, *values in rows:
        for curve, value in zip(curves, values, strict=True):
            if value is not None:
                curve.append((step, value))
    return curves


def _thinned(points: Points) -> Points:
    return [points[place] for place in kept([value for _, value in points])]
