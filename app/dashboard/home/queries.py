"""Reads what the first page shows. Each query is one index range of one project's rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.jobs.models import Job
from app.models.models import Model
from app.pagination import Owned, Page, page_by_age

PAGE = 50


def jobs(db: Session, project_id: str, after: str | None) -> Page[Job]:
    """Returns a page of jobs, newest first, and whether older ones follow."""
    own = select(Job).where(Job.project_id == project_id)
    of = Owned(Job.project_id, project_id)
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
