"""Reads the completions of a job. Each query is one index range: of one step, or of one row."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Float, cast, func, literal, select, tuple_
from sqlalchemy.orm import Session, aliased

from app.dashboard.samples.wanted import ANY, NONE, SPLITS, Sort, Wanted
from app.events.models import JobMetrics
from app.pagination import Page, fetch_page
from app.rollouts.models import Rollout
from app.rollouts.service import Place, Split, place_of
from methods import metrics as names

PAGE = 50
STEPS = 1000
"""Places of the slider. A job with more steps has a place for every second, third, ... of them."""
SEARCHED = 20_000
"""Characters of each completion that are searched: the texts of a step may be long, and have no index."""
LARGEST_GROUP = 256
CURVE = 2000
"""Steps of one row's curve, the newest."""


class Total(NamedTuple):
    """What the completions of a step come to."""

    n: int = 0
    mean: float | None = None
    n_cut: int = 0
    failures: Mapping[str, int] = {}


class GroupTotal(NamedTuple):
    """What the completions of one row at one step come to; the rewards of those that got one."""

    n: int
    n_failed: int
    mean: float | None
    spread: float | None
    """The standard deviation (of the group, not of a larger one that it stands for)."""
    low: float | None
    high: float | None


def splits(db: Session, job_id: str) -> list[Split]:
    """Returns the splits of which a job has completions."""
    return [
        split
        for split in SPLITS
        if db.scalar(select(func.min(Rollout.step)).where(Rollout.job_id == job_id, Rollout.split == split))
        is not None
    ]


def newest_step(db: Session, job_id: str, split: Split, *, most: int | None = None) -> int | None:
    """Returns the newest step that there is up to `most`, else the first one; None without completions."""
    own = (Rollout.job_id == job_id, Rollout.split == split)
    upto = () if most is None else (Rollout.step <= most,)
    found = db.scalar(select(func.max(Rollout.step)).where(*own, *upto))
    return db.scalar(select(func.min(Rollout.step)).where(*own)) if found is None else found


def neighbours(db: Session, job_id: str, split: Split, step: int) -> tuple[int | None, int | None]:
    """Returns the steps before and behind one."""
    own = (Rollout.job_id == job_id, Rollout.split == split)
    earlier = select(func.max(Rollout.step)).where(*own, Rollout.step < step)
    return db.scalar(earlier), db.scalar(select(func.min(Rollout.step)).where(*own, Rollout.step > step))


def steps(db: Session, job_id: str, split: Split, here: int, most: int = STEPS) -> list[int]:
    """Returns the steps that there are, some `most` of them; `here` and the last one in any case.

    Each is one look into the index, however many completions a step has.
    """
    own = (Rollout.job_id == job_id, Rollout.split == split)
    first = db.scalar(select(func.min(Rollout.step)).where(*own))
    last = db.scalar(select(func.max(Rollout.step)).where(*own))
    if first is None or last is None:
        return []
    stride = math.ceil((last - first + 1) / most)

    def behind(step: Any) -> Any:
        rollout = aliased(Rollout)
        mine = (rollout.job_id == job_id, rollout.split == split, rollout.step >= step)
        return select(func.min(rollout.step)).where(*mine).scalar_subquery()

    walk = select(behind(first).label("step")).cte("walk", recursive=True)
    walk = walk.union_all(select(behind(walk.c.step + stride)).where(walk.c.step.is_not(None)))
    found = db.scalars(select(walk.c.step).where(walk.c.step.is_not(None)).limit(most + 1)).all()
    return sorted({*found, here, last})


def total(db: Session, job_id: str, split: Split, step: int) -> Total:
    """Returns what all completions of a step come to."""
    counts = (func.count(), func.sum(Rollout.reward), func.count(Rollout.reward), _n_cut())
    query = select(Rollout.failure, *counts).where(*_at(job_id, split, step)).group_by(Rollout.failure)
    rows = db.execute(query).all()
    graded = sum(row[3] for row in rows)
    mean = sum(row[2] or 0.0 for row in rows) / graded if graded else None
    failures = {row[0]: row[1] for row in rows if row[0] is not None}
    return Total(sum(row[1] for row in rows), mean, sum(row[4] for row in rows), failures)


def completions(
    db: Session, job_id: str, step: int, wanted: Wanted, row: int | None, limit: int = PAGE
) -> Page[Rollout]:
    """Returns a page of a step's completions. `row` is what stands on the line that is wanted."""
    own = (*_at(job_id, wanted.split, step), *_conditions(wanted, row))
    sorted_by = [*_key(wanted.sort), Rollout.row, Rollout.sample]
    query = select(Rollout).where(*own).order_by(*sorted_by)
    if (place := place_of(wanted.after)) and place.step == step:
        seen = (Rollout.row == place.row, Rollout.sample == place.sample)
        last = db.execute(select(*sorted_by).where(*_at(job_id, wanted.split, step), *seen)).first()
        if last is not None:
            query = query.where(tuple_(*sorted_by) > tuple_(*map(literal, last)))
    return fetch_page(db, query, limit)


def group_totals(
    db: Session, job_id: str, split: Split, step: int, rows: Collection[int]
) -> dict[int, GroupTotal]:
    """Returns what the groups of some rows come to at a step."""
    query = select(Rollout.row, *_sums()).where(*_at(job_id, split, step), Rollout.row.in_(rows))
    return {row: GroupTotal(*of) for row, *of in db.execute(query.group_by(Rollout.row))}


def group(db: Session, job_id: str, split: Split, step: int, row: int) -> Sequence[Rollout]:
    """Returns the completions of one row at one step, at most `LARGEST_GROUP`."""
    own = (*_at(job_id, split, step), Rollout.row == row)
    return db.scalars(select(Rollout).where(*own).order_by(Rollout.sample).limit(LARGEST_GROUP)).all()


def one(db: Session, job_id: str, split: Split, place: Place) -> Rollout | None:
    return db.get(Rollout, (job_id, split, *place))


def history(db: Session, job_id: str, split: Split, row: int) -> dict[int, GroupTotal]:
    """Returns what one row's groups come to by step: the newest `CURVE` steps that asked for it, in order."""
    query = select(Rollout.step, *_sums()).where(*_of_row(job_id, split, row)).group_by(Rollout.step)
    found = db.execute(query.order_by(Rollout.step.desc()).limit(CURVE)).all()
    return {step: GroupTotal(*of) for step, *of in reversed(found)}


def rewards(
    db: Session, job_id: str, split: Split, row: int, at: Collection[int]
) -> Mapping[int, dict[int, float | None]]:
    """Returns the rewards of one row's completions by step and sample."""
    columns = (Rollout.step, Rollout.sample, Rollout.reward)
    found: dict[int, dict[int, float | None]] = {}
    query = select(*columns).where(*_of_row(job_id, split, row), Rollout.step.in_(at))
    for step, sample, reward in db.execute(query.order_by(Rollout.step, Rollout.sample)):
        found.setdefault(step, {})[sample] = reward
    return found


def at_places(
    db: Session, job_id: str, split: Split, places: Collection[Place]
) -> dict[tuple[int, int, int], Rollout]:
    """Returns completions by where they stand."""
    columns = (Rollout.step, Rollout.row, Rollout.sample)
    own = (Rollout.job_id == job_id, Rollout.split == split, tuple_(*columns).in_(list(places)))
    return {(each.step, each.row, each.sample): each for each in db.scalars(select(Rollout).where(*own))}


def arms(db: Session, job_id: str, at: Collection[int]) -> dict[int, dict[str, Any]]:
    """Returns, by step, what a job with several seeds or a control says of whose step it is."""
    told = (names.ARM_SEED, names.ARM_STEP, names.ARM_IS_CONTROL)
    columns = [JobMetrics.values[name].as_float() for name in told]
    query = select(JobMetrics.step, *columns).where(JobMetrics.job_id == job_id, JobMetrics.step.in_(at))
    return {
        step: {"seed": int(seed), "step": int(own), "is_control": bool(control)}
        for step, seed, own, control in db.execute(query)
        if seed is not None and own is not None
    }


def _at(job_id: str, split: Split, step: int) -> tuple[ColumnElement[bool], ...]:
    return Rollout.job_id == job_id, Rollout.split == split, Rollout.step == step


def _of_row(job_id: str, split: Split, row: int) -> tuple[ColumnElement[bool], ...]:
    return Rollout.job_id == job_id, Rollout.split == split, Rollout.row == row


def _conditions(wanted: Wanted, row: int | None) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.line is not None:
        found.append(Rollout.row == (-1 if row is None else row))
    if wanted.low is not None:
        found.append(Rollout.reward >= wanted.low)
    if wanted.high is not None:
        found.append(Rollout.reward <= wanted.high)
    if wanted.failure in (ANY, NONE):
        found.append(Rollout.failure.is_(None) if wanted.failure == NONE else Rollout.failure.is_not(None))
    elif wanted.failure:
        found.append(Rollout.failure == wanted.failure)
    if wanted.is_cut:
        found.append(Rollout.finish_reason == "length")
    if wanted.search:
        searched = func.left(Rollout.text, SEARCHED)
        found.append(searched.icontains(wanted.search.replace("\x00", ""), autoescape=True))
    return found


def _key(sort: Sort) -> list[ColumnElement[float]]:
    """Returns what completions are sorted by before their row, the least first; those without a reward come
    last."""
    reward, tokens = cast(Rollout.reward, Float), cast(Rollout.tokens, Float)
    match sort:
        case "best":
            return [-func.coalesce(reward, -math.inf)]
        case "worst":
            return [func.coalesce(reward, math.inf)]
        case "longest":
            return [-tokens]
        case "shortest":
            return [tokens]
    return []


def _n_cut() -> ColumnElement[int]:
    return func.count().filter(Rollout.finish_reason == "length")


def _sums() -> tuple[ColumnElement[Any], ...]:
    reward = Rollout.reward
    numbers = (func.avg(reward), func.stddev_pop(reward), func.min(reward), func.max(reward))
    return (func.count(), func.count(Rollout.failure), *numbers)
