"""Reads what the first page shows. Each query is one index range of one project's rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from sqlalchemy import Select, and_, exists, or_, select, tuple_
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.events.models import JobEvent, JobMetrics
from app.jobs.models import ACTIVE, TERMINAL, Job
from app.models.models import Model
from app.pagination import Owned, Page, page_by_age
from methods import metrics as names

PAGE = 30
MOST_ACTIVE = 200
SPARK_POINTS = 40
WAITS = "waits-"
"""What keys of events begin with that tell what a queued job waits for."""

StatusFilter = Literal["active", "running", "queued", "paused", "succeeded", "failed", "cancelled"]
MethodFilter = Literal["reinforcement", "supervised", "dpo"]


class Wanted(NamedTuple):
    """What jobs a person looks for; an empty field does not matter."""

    status: StatusFilter | None
    method: MethodFilter | None
    text: str

    @property
    def is_everything(self) -> bool:
        return not any(self)


def has_jobs(db: Session, project_id: str) -> bool:
    return bool(db.scalar(select(exists().where(Job.project_id == project_id))))


def active(db: Session, project_id: str) -> list[Job]:
    """Returns the jobs that are not over, oldest first: those that wait are in the order of their turns."""
    own = select(Job).where(Job.project_id == project_id, Job.status.in_(ACTIVE))
    return list(db.scalars(own.order_by(Job.created_at, Job.id).limit(MOST_ACTIVE)))


def ended(db: Session, project_id: str, after: str | None) -> Page[Job]:
    """Returns a page of the jobs that are over, newest first, and whether older ones follow."""
    return _page(db, select(Job).where(Job.status.in_(TERMINAL)), project_id, after)


def matching(db: Session, project_id: str, wanted: Wanted, after: str | None) -> Page[Job]:
    """Returns a page of the jobs that somebody looks for, newest first."""
    query = select(Job)
    if wanted.status:
        query = query.where(Job.status.in_(ACTIVE if wanted.status == "active" else (wanted.status,)))
    if wanted.method:
        query = query.where(Job.method["type"].astext == wanted.method)
    if wanted.text:
        within = (Job.suffix, Job.model, Job.id, Job.fine_tuned_model)
        query = query.where(or_(*(column.icontains(wanted.text, autoescape=True) for column in within)))
    return _page(db, query, project_id, after)


def _page(db: Session, query: Select[Job], project_id: str, after: str | None) -> Page[Job]:
    of = Owned(Job.project_id, project_id)
    own = query.where(Job.project_id == project_id)
    return page_by_age(db, own, of, after=after, limit=PAGE, newest_first=True)


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


def sparks(db: Session, shown: Sequence[Job]) -> dict[str, list[float]]:
    """Returns for each job its training reward, or else its loss, at some steps from first to last."""
    wanted = [(job.id, step) for job in shown for step in _some_steps(job.last_step)]
    reward = JobMetrics.values[names.REWARD_MEAN].as_float()
    loss = JobMetrics.values[names.LOSS.format(split="train")].as_float()
    found = db.execute(
        select(JobMetrics.job_id, reward, loss)
        .where(tuple_(JobMetrics.job_id, JobMetrics.step).in_(wanted))
        .order_by(JobMetrics.job_id, JobMetrics.step)
    )
    curves: dict[str, list[float]] = {}
    for job_id, rewarded, lost in found:
        if (value := rewarded if rewarded is not None else lost) is not None:
            curves.setdefault(job_id, []).append(value)
    return curves


def _some_steps(last: int) -> list[int]:
    count = min(last, SPARK_POINTS - 1)
    return sorted({round(last * number / count) for number in range(count + 1)}) if count else []


def reasons(db: Session, shown: Sequence[Job]) -> dict[str, str]:
    """Returns what queued jobs wait for, as far as a worker has told."""
    ids = [job.id for job in shown if job.status == "queued"]
    told = (JobEvent.job_id.in_(ids), JobEvent.key >= WAITS, JobEvent.key < WAITS[:-1] + ".")
    found = db.execute(select(JobEvent.job_id, JobEvent.message).where(*told).order_by(JobEvent.seq))
    return {row.job_id: row.message for row in found}
