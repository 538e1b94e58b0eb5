"""Reads what the page of a job shows. Each query is one index range of its rows."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Integer, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.events.models import JobEvent, JobMetrics
from app.jobs.models import Job

EVENTS = 100
SAMPLED = 20
"""Steps, of the newest and of those with a checkpoint, by whose metrics a job's curves are known."""
ACTION = "action-"
"""What keys of events begin with that tell what the run did of its own accord."""


def known_metrics(db: Session, job_id: str) -> set[str]:
    """Returns the names of the metrics that a job's first, newest and validated steps have."""
    mine = JobMetrics.job_id == job_id
    newest = select(JobMetrics.step).where(mine).order_by(JobMetrics.step.desc()).limit(SAMPLED)
    first = select(JobMetrics.step).where(mine).order_by(JobMetrics.step).limit(2)
    saved = select(Checkpoint.step).where(Checkpoint.job_id == job_id)
    saved = saved.order_by(Checkpoint.step.desc()).limit(SAMPLED)
    steps = {step for query in (newest, first, saved) for step in db.scalars(query)}
    rows = db.scalars(select(JobMetrics.values).where(mine, JobMetrics.step.in_(steps)))
    return {name for values in rows for name, value in values.items() if isinstance(value, int | float)}


def columns(
    db: Session, job_id: str, wanted: Sequence[str], since: int
) -> tuple[list[int], dict[str, list[float | None]]]:
    """Returns the steps behind `since`, and the values of some metrics at each, None where it has none.

    The inner query unpacks the metrics of a step once (they are stored compressed), and not for each name.
    """
    unpacked = JobMetrics.values.op("||", return_type=JSONB())(literal({}, JSONB())).label("known")
    rows = (
        select(JobMetrics.step, unpacked)
        .where(JobMetrics.job_id == job_id, JobMetrics.step > since)
        .order_by(JobMetrics.step)
        .offset(0)
        .subquery()
    )
    values = (rows.c.known[name].as_float() for name in wanted)
    found = db.execute(select(rows.c.step, *values)).all()
    steps, *read = zip(*found, strict=True) if found else ([] for _ in range(len(wanted) + 1))
    return list(steps), {name: list(column) for name, column in zip(wanted, read, strict=True)}


def guard_actions(db: Session, job_id: str) -> list[tuple[int, str]]:
    """Returns what the guard did or would have done, each with its step."""
    step = JobEvent.data["step"].astext.cast(Integer)
    own = (JobEvent.job_id == job_id, JobEvent.key >= ACTION, JobEvent.key < ACTION[:-1] + ".")
    found = db.execute(select(step, JobEvent.message).where(*own).order_by(JobEvent.seq)).all()
    return [(at, message) for at, message in found if at is not None]


def checkpoints(db: Session, job_id: str) -> Sequence[Checkpoint]:
    return db.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step)).all()


def events(db: Session, job_id: str) -> Sequence[JobEvent]:
    """Returns the newest events, newest first."""
    return db.scalars(
        select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.seq.desc()).limit(EVENTS)
    ).all()


def ahead(db: Session, job: Job) -> int:
    """Returns how many queued jobs of its project are older than a queued job."""
    older = (Job.project_id == job.project_id, Job.status == "queued", Job.created_at < job.created_at)
    return db.scalars(select(func.count()).where(*older)).one()
