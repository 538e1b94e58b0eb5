"""Appends to a job's log and its per-step metrics, and reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.events.models import JobEvent, JobMetrics
from app.ids import random_id
from app.jobs.models import Job
from app.pagination import Page, fetch_page, number_after
from methods import metrics as names

Level = Literal["info", "warn", "error"]


def append(
    db: Session,
    job_id: str,
    key: str,
    message: str,
    *,
    level: Level = "info",
    data: Mapping[str, Any] | None = None,
    is_metrics: bool = True,
) -> JobEvent | None:
    """Adds the next event of a job. Returns None if `key` was already told (a step repeated after a resume).

    The number comes from the job's row, whose lock orders writers, so that a reader who follows numbers
    misses none. An event with data is of type "metrics" unless `is_metrics` denies it, any other
    of type "message".
    """
    locked = db.scalars(select(Job.attempt).where(Job.id == job_id).with_for_update()).one()
    if db.scalars(select(JobEvent.seq).where(JobEvent.job_id == job_id, JobEvent.key == key)).first():
        return None
    seq = db.scalars(
        update(Job).where(Job.id == job_id).values(last_seq=Job.last_seq + 1).returning(Job.last_seq)
    ).one()
    event = JobEvent(
        job_id=job_id,
        seq=seq,
        id=random_id("ftevent-"),
        key=key,
        level=level,
        type="metrics" if data and is_metrics else "message",
        message=message,
        data=dict(data or {}),
        attempt=locked,
    )
    db.add(event)
    db.flush()
    return event


def list_events(db: Session, job_id: str, *, after: str | None, limit: int) -> Page[JobEvent]:
    """Returns a job's log, newest first; `after` is an event's id."""
    query = select(JobEvent).where(JobEvent.job_id == job_id)
    if after:
        seen = select(JobEvent.seq).where(JobEvent.job_id == job_id, JobEvent.id == after)
        if (seq := db.scalars(seen).first()) is not None:
            query = query.where(JobEvent.seq < seq)
    return fetch_page(db, query.order_by(JobEvent.seq.desc()), limit)


def place(db: Session, job: Job, *, after: str | None, last_event_id: str | None) -> int:
    """Returns the number behind which a follower goes on.

    It is the number that a browser tells, or that of the event which `after` names by id or number; 0, the
    start, for what is unknown.
    """
    for cursor in (last_event_id, after):
        if (number := number_after(cursor)) is not None:
            return min(number, job.last_seq)
        if cursor:
            seen = select(JobEvent.seq).where(JobEvent.job_id == job.id, JobEvent.id == cursor)
            return db.scalars(seen).first() or 0
    return 0


def trained_tokens(db: Session, job_id: str) -> int | None:
    """Returns the tokens that a job had trained on by its last step, or None before its first."""
    newest = select(JobMetrics.values[names.TRAINED_TOKENS].as_float()).where(JobMetrics.job_id == job_id)
    tokens = db.scalars(newest.order_by(JobMetrics.step.desc()).limit(1)).first()
    return None if tokens is None else int(tokens)


def list_metrics(db: Session, job_id: str, *, after: str | None, limit: int) -> Page[JobMetrics]:
    """Returns the numbers of a job's steps, first step first; `after` is a step."""
    query = select(JobMetrics).where(JobMetrics.job_id == job_id)
    if (step := number_after(after)) is not None:
        query = query.where(JobMetrics.step > step)
    return fetch_page(db, query.order_by(JobMetrics.step), limit)
