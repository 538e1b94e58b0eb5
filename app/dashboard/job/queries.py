"""Reads what the page of a job shows. Each query is one index range of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection, sql
from sqlalchemy import Integer, func, select
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.events.models import JobEvent, JobMetrics
from app.jobs.models import Job

EVENTS = 100
SAMPLED = 20
"""Steps, of the newest and of those with a checkpoint, by whose metrics a job's curves are known."""
MOST_IDENTIFIER = 63
"""Bytes of a name in Postgres; a longer one would be cut, and then name nothing."""
ROWS = sql.SQL(
    "SELECT {read} FROM job_metrics m, jsonb_to_record(m.values) AS known({declared}) "
    "WHERE m.job_id = {job_id} AND m.step > {since} ORDER BY m.step"
)
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
) -> tuple[Sequence[int], dict[str, Sequence[float | None]]]:
    """Returns the steps behind `since`, and the values of some metrics at each, None where it has none.

    The metrics of a step are unpacked once, not for each name (they are stored compressed), and numbers come
    in binary form.
    """
    short = [name for name in wanted if len(name.encode()) <= MOST_IDENTIFIER]
    long = [name for name in wanted if name not in short]
    read: list[sql.Composable] = [sql.Identifier("known", name) for name in short]
    read += [sql.SQL("(m.values ->> {})::float8").format(sql.Literal(name)) for name in long]
    declared: list[sql.Composable] = [sql.SQL("{} float8").format(sql.Identifier(name)) for name in short]
    query = ROWS.format(
        read=sql.SQL(", ").join([sql.SQL("m.step"), *read]),
        declared=sql.SQL(", ").join(declared or [sql.SQL("nothing float8")]),
        job_id=sql.Literal(job_id),
        since=sql.Literal(since),
    )
    driver: Connection[Any] = db.connection().connection.driver_connection  # type: ignore[assignment]
    with driver.cursor(binary=True) as cursor:
        found = cursor.execute(query).fetchall()
    if not found:
        return [], {name: [] for name in wanted}
    steps, *values = zip(*found, strict=True)
    return steps, dict(zip([*short, *long], values, strict=True))


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
