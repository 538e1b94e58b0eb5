"""Reads what the pages show. Each query is one index range of one project's rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.events.models import JobEvent, JobMetrics
from app.jobs.models import Job
from app.models.models import Model
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


def jobs(db: Session, project_id: str, after: str | None) -> Page[Job]:
    """Returns a page of jobs, newest first, and whether older ones follow."""
    own = select(Job).where(Job.project_id == project_id)
    of = Owned(Job.project_id, project_id)
    return page_by_age(db, own, of, after=after, limit=PAGE, newest_first=True)


def job(db: Session, project_id: str, job_id: str) -> Job | None:
    return db.scalars(select(Job).where(Job.id == job_id, Job.project_id == project_id)).one_or_none()


class Rewards(NamedTuple):
    """Validation rewards of a job: the base's, and that of the model which it has delivered, if it has."""

    base: float
    delivered: float | None


def rewards(db: Session, shown: Sequence[Job]) -> dict[str, Rewards]:
    """Returns the validation rewards by job, without jobs not validated."""
    delivers = (Model.job_id == Checkpoint.job_id, Model.storage_key == Checkpoint.storage_key)
    found = db.execute(
        select(Checkpoint.job_id, Checkpoint.step, Checkpoint.valid_reward, Model.name)
        .outerjoin(Model, and_(*delivers))
        .where(Checkpoint.job_id.in_([job.id for job in shown]), Checkpoint.valid_reward.is_not(None))
        .where(or_(Checkpoint.step == 0, Model.name.is_not(None)))
    ).all()
    tuned = {job.id: job.fine_tuned_model for job in shown}
    base = {job_id: reward for job_id, step, reward, _ in found if step == 0 and reward is not None}
    delivered = {job_id: reward for job_id, _, reward, name in found if name and name == tuned[job_id]}
    return {job_id: Rewards(reward, delivered.get(job_id)) for job_id, reward in base.items()}


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
