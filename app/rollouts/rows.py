"""Reads how each training row fared, epoch by epoch: mean reward, and shares of right and wrong answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Float, Select, case, cast, func, literal, select
from sqlalchemy.orm import Session, aliased

from app.pagination import Page, number_after
from app.rollouts.models import Rollout
from methods.rewards import PARSE_FAULT, Scale, scale_of

MOST_EPOCHS = 200
"""Epochs of each row in one answer: with 100 rows an answer has some 2 MB."""


class RowEpoch(NamedTuple):
    """What one epoch's completions of a row were worth."""

    epoch: int
    n: int
    """Completions that count: graded ones, and those that did not parse, which train as wrong."""
    failed: int
    """Completions whose grading failed otherwise."""
    mean_reward: float | None
    right_share: float | None
    wrong_share: float | None


class RowEpochs(NamedTuple):
    """A training row's epochs."""

    row: int
    epochs: list[RowEpoch]


class Epochs(NamedTuple):
    """A range of epochs, both ends included; None is open."""

    first: int | None
    last: int | None

    def bounded(self, newest: int) -> tuple[int, int]:
        """Returns the range as it is read: at most `MOST_EPOCHS`, the newest where neither end is given."""
        if self.first is not None:
            most = self.first + MOST_EPOCHS - 1
            return self.first, most if self.last is None else min(self.last, most)
        last = newest if self.last is None else self.last
        return max(0, last - MOST_EPOCHS + 1), last


def list_rows(
    db: Session,
    job_id: str,
    epochs: Epochs,
    reward_range: Sequence[float] | None,
    *,
    after: str | None,
    limit: int,
) -> Page[RowEpochs]:
    """Returns the rows that were trained on, by their number, each with its epochs.

    `reward_range` is the grader's, which says what is right and what is wrong.
    """
    rows = _rows(db, job_id, number_after(after), limit + 1)
    newest = select(func.max(Rollout.epoch)).where(Rollout.job_id == job_id, Rollout.split == "train")
    first, last = epochs.bounded(db.scalar(newest) or 0)
    found: dict[int, list[RowEpoch]] = {row: [] for row in rows[:limit]}
    for row, *numbers in db.execute(_by_epoch(job_id, list(found), scale_of(reward_range), first, last)):
        found[row].append(RowEpoch(*numbers))
    return Page([RowEpochs(row, numbers) for row, numbers in found.items()], len(rows) > limit)


def _rows(db: Session, job_id: str, after: int | None, n: int) -> Sequence[int]:
    """Returns the first rows behind one. Each is one look into an index, however many grades a row has."""

    def next_row(than: Any) -> Any:
        rollout = aliased(Rollout)
        own = (rollout.job_id == job_id, rollout.split == "train", rollout.row > than)
        return select(rollout.row).where(*own).order_by(rollout.row).limit(1).scalar_subquery()

    walk = select(next_row(-1 if after is None else after).label("row")).cte("walk", recursive=True)
    walk = walk.union_all(select(next_row(walk.c.row)).where(walk.c.row.is_not(None)))
    return db.scalars(select(walk.c.row).where(walk.c.row.is_not(None)).limit(n)).all()


def _by_epoch(job_id: str, rows: Sequence[int], scale: Scale, first: int, last: int) -> Select[Any]:
    parsed = case((Rollout.failure == PARSE_FAULT, literal(min(scale.low, 0.0))), else_=None)
    reward = cast(func.coalesce(Rollout.reward, parsed), Float)
    own = (Rollout.job_id == job_id, Rollout.split == "train", Rollout.row.in_(rows))
    return (
        select(
            Rollout.row,
            Rollout.epoch,
            func.count(reward),
            func.count() - func.count(reward),
            func.avg(reward),
            _share(reward, reward >= scale.right_from),
            _share(reward, reward <= scale.wrong_to),
        )
        .where(*own, Rollout.epoch.between(first, last))
        .group_by(Rollout.row, Rollout.epoch)
        .order_by(Rollout.row, Rollout.epoch)
    )


def _share(reward: Any, holds: Any) -> Any:
    """Returns the share of the completions with a reward for which something holds."""
    return func.avg(case((reward.is_(None), None), (holds, 1.0), else_=0.0)).cast(Float)
