"""Reads what the page of a job shows. Each query is one index range of its rows."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.events.models import JobEvent, JobMetrics
from methods import metrics as names

EVENTS = 200

Series = dict[str, list[tuple[int, float]]]
CURVES = (
    names.REWARD_MEAN,
    names.VALID_REWARD_MEAN,
    names.GOLD_GAP,
    names.GOLD_GAP_LOW,
    names.GOLD_GAP_HIGH,
    names.KL_PROBE_MEAN,
    names.KL_REFERENCE,
    names.ENTROPY_MEAN,
    names.COMPLETION_TOKENS_MEAN.format(split="train"),
    names.LOSS.format(split="train"),
    names.LOSS.format(split="full_valid"),
    names.ACCURACY.format(split="train"),
    names.ACCURACY.format(split="full_valid"),
    names.GUARD_ACTIONS,
    *(
        name.format(split=split)
        for name in (names.REASONING_TOKENS_MEAN, names.EPISODE_TURNS)
        for split in ("train", "valid")
    ),
)


def series(db: Session, job_id: str) -> Series:
    """Returns the curves of a job by metric name. Steps without a value are left out."""
    found = db.execute(
        select(JobMetrics.step, *(JobMetrics.values[name].as_float() for name in CURVES))
        .where(JobMetrics.job_id == job_id)
        .order_by(JobMetrics.step)
    )
    curves: Series = {name: [] for name in CURVES}
    for step, *values in found:
        for name, value in zip(CURVES, values, strict=True):
            if value is not None:
                curves[name].append((step, value))
    return curves


def checkpoints(db: Session, job_id: str) -> Sequence[Checkpoint]:
    return db.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step)).all()


def events(db: Session, job_id: str) -> Sequence[JobEvent]:
    """Returns the newest events, newest first."""
    return db.scalars(
        select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq.desc()).limit(EVENTS)
    ).all()
