"""Reads what the pages show. Each query is one index range of one project's rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.events.models import JobEvent, JobMetrics
from app.jobs.models import Job
from app.pagination import Owned, Page, page_by_age
from app.rollouts.models import Rollout
from methods import metrics as names

PAGE = 50
EVENTS = 200
ROLLOUTS = 400

Series = dict[str, list[tuple[int, float]]]
CURVES = (
    names.REWARD_MEAN,
    names.VALID_REWARD_MEAN,
    names.KL_PROBE_MEAN,
    names.KL_REFERENCE,
    names.ENTROPY_MEAN,
    names.COMPLETION_TOKENS_MEAN.format(split="train"),
    names.LOSS.format(split="train"),
    names.LOSS.format(split="full_valid"),
    names.ACCURACY.format(split="train"),
    names.ACCURACY.format(split="full_valid"),
)


def jobs(db: Session, project_id: str, after: str | None) -> Page[Job]:
    """Returns a page of jobs, newest first, and whether older ones follow."""
    own = select(Job).where(Job.project_id == project_id)
    of = Owned(Job.project_id, project_id)
    return page_by_age(db, own, of, after=after, limit=PAGE, newest_first=True)


def job(db: Session, project_id: str, job_id: str) -> Job | None:
    return db.scalars(select(Job).where(Job.id == job_id, Job.project_id == project_id)).one_or_none()


def rewards(db: Session, shown: Sequence[Job]) -> dict[str, tuple[float, float]]:
    """Returns the validation reward of the base and of the best checkpoint by job, without jobs not
    validated."""
    base = func.max(Checkpoint.valid_reward).filter(Checkpoint.step == 0)
    best = func.max(Checkpoint.valid_reward)
    found = db.execute(
        select(Checkpoint.job_id, base, best)
        .where(Checkpoint.job_id.in_([job.id for job in shown]))
        .group_by(Checkpoint.job_id)
    )
    return {
        job_id: (started, top) for job_id, started, top in found if started is not None and top is not None
    }


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


def rollouts(db: Session, job_id: str, split: str, step: int | None) -> dict[str, Any]:
    """Returns the graded completions of one step (the newest if none is named), and its neighbours."""
    mine = (Rollout.job_id == job_id, Rollout.split == split)
    if step is None:
        step = db.scalar(select(func.max(Rollout.step)).where(*mine))
    if step is None:
        return {"step": 0, "rollouts": [], "earlier": None, "later": None}
    return {
        "step": step,
        "rollouts": db.scalars(
            select(Rollout)
            .where(*mine, Rollout.step == step)
            .order_by(Rollout.row, Rollout.sample)
            .limit(ROLLOUTS)
        ).all(),
        "earlier": db.scalar(select(func.max(Rollout.step)).where(*mine, Rollout.step < step)),
        "later": db.scalar(select(func.min(Rollout.step)).where(*mine, Rollout.step > step)),
    }
