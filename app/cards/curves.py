"""The curves of a card: numbers of a job's steps, thinned to what a page can hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.events.models import JobMetrics
from app.jobs.models import Job
from methods import metrics as names

MOST_POINTS = 500
"""Points of a curve, and dropped checkpoints, in a card: more cannot be told apart on a page, and a card of
10,000 steps stays below a quarter of a megabyte."""
REINFORCEMENT = (
    names.REWARD_MEAN,
    names.VALID_REWARD_MEAN,
    names.KL_REFERENCE,
    names.KL_PROBE_MEAN,
    names.ENTROPY_MEAN,
    names.COMPLETION_TOKENS_MEAN.format(split="train"),
    names.GRAD_NORM,
)
TUNING = (
    names.LOSS.format(split="train"),
    names.LOSS.format(split="full_valid"),
    names.KL_PROBE_MEAN,
    names.GRAD_NORM,
)

Item = TypeVar("Item")


def curves(db: Session, job: Job) -> dict[str, Any]:
    """Returns a table with a row for every k-th step, and the last: k is the least that gives at most
    `MOST_POINTS`."""
    shown = REINFORCEMENT if job.method["type"] == "reinforcement" else TUNING
    every = stride(job.last_step)
    last = select(func.max(JobMetrics.step)).where(JobMetrics.job_id == job.id).scalar_subquery()
    found = db.execute(
        select(JobMetrics.step, JobMetrics.epoch, *(JobMetrics.values[name].as_float() for name in shown))
        .where(JobMetrics.job_id == job.id)
        .where(or_(JobMetrics.step % every == 0, JobMetrics.step == last))
        .order_by(JobMetrics.step)
    )
    rows = [list(row) for row in found]
    return {"steps": job.last_step, "every": every, "columns": ["step", "epoch", *shown], "rows": rows}


def stride(count: int) -> int:
    """Returns the least k for which every k-th of so many is at most `MOST_POINTS`."""
    return max(1, math.ceil(count / MOST_POINTS))


def thinned(items: Sequence[Item]) -> list[Item]:
    """Returns every k-th of them, and the last."""
    every, last = stride(len(items)), len(items) - 1
    return [item for number, item in enumerate(items) if number % every == 0 or number == last]
