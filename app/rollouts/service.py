"""Reads grades, a page at a time. Each page is one range of an index."""

from __future__ import annotations

from typing import Literal, NamedTuple

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from app.pagination import MAX_NUMBER, Page, fetch_page
from app.rollouts.models import Rollout

Split = Literal["train", "valid", "fresh", "greedy", "control"]


class Place(NamedTuple):
    """Where a rollout stands within a job and split."""

    step: int
    row: int
    sample: int


class Filter(NamedTuple):
    """What to read of a job; None means all."""

    split: Split
    step: int | None = None
    epoch: int | None = None
    row: int | None = None


def list_rollouts(
    db: Session, job_id: str, wanted: Filter, *, after: str | None, limit: int
) -> Page[Rollout]:
    """Returns grades in the order they were made: by step, then row, then sample."""
    query = select(Rollout).where(Rollout.job_id == job_id, Rollout.split == wanted.split)
    if wanted.step is not None:
        query = query.where(Rollout.step == wanted.step)
    if wanted.epoch is not None:
        query = query.where(Rollout.epoch == wanted.epoch)
    if wanted.row is not None:
        query = query.where(Rollout.row == wanted.row)
    if place := place_of(after):
        query = query.where(tuple_(Rollout.step, Rollout.row, Rollout.sample) > tuple_(*place))
    return fetch_page(db, query.order_by(Rollout.step, Rollout.row, Rollout.sample), limit)


def cursor_of(rollout: Rollout) -> str:
    """Returns the id of a rollout within its job, such as `train-12-3-0`: split, step, row, sample."""
    return f"{rollout.split}-{rollout.step}-{rollout.row}-{rollout.sample}"


def place_of(cursor: str | None) -> Place | None:
    """Reads a cursor. Returns None for what is no cursor, so that it is ignored like every unknown one."""
    numbers = (cursor or "").split("-")[1:]
    if len(numbers) != 3 or not all(number.isascii() and number.isdecimal() for number in numbers):
        return None
    if any(len(number) > 10 or int(number) > MAX_NUMBER for number in numbers):
        return None
    return Place(*map(int, numbers))
