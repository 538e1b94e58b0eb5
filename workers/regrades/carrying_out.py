"""Carries out one regrade: each completion is graded and written as it is done; in the end both graders are
compared.

What is written stays: another attempt goes on with the completions that have no result yet.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import groupby, islice
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import bindparam, insert, or_, select, update

from app.db import unit_of_work
from app.disk import scratch_folder
from app.evals.criteria import threshold
from app.grading.limits import grade_limits
from app.jobs.leases import Claim
from app.jobs.models import Job
from app.regrades import runs
from app.regrades.models import Regrade, RegradeResult
from app.settings import get_settings
from app.storable import clean, storable
from graders import Grade, Grader, GraderSpec
from graders.grading import grade_group_safely, grade_safely
from graders.spec import is_of_groups
from methods.rewards import PARSE_FAULT
from workers.jobs.grader_validation import build_job_grader
from workers.jobs.job_data import SCRATCH, JobInvalid
from workers.regrades.comparing import Side, compare
from workers.regrades.sources import Source, Stored, source_of

ROWS_AT_ONCE = 500
"""Results that are written or read together. Chosen, not measured."""
FLUSH_SECONDS = 1.0
"""How long a result waits to be written with others. Chosen, not measured: a person who watches sees it."""
MOST_OUTAGES = 32
"""Completions, the first ones of an attempt, for which a server could not reply: then the regrade fails. As
with runs of evals: each of them was asked for again and again."""
SHOWN = 4000
"""Characters of a failure's message that are kept, its end, as in training."""


class Built(NamedTuple):
    """A grader with what it was built of."""

    spec: GraderSpec
    grader: Grader


class Graders(NamedTuple):
    """The graders of a regrade.

    Attributes:
        new: the one that is tried.
        baseline: the one to compare it with, if that has to grade too.
        before: what the rewards before came from; None where there are none.
        is_of_rollouts: whether a job's rollouts are graded, and not stored completions.
    """

    new: Built
    baseline: Built | None
    before: GraderSpec | None
    is_of_rollouts: bool

    @property
    def are_of_groups(self) -> bool:
        """Whether one of those that grade compares the completions of a group."""
        return any(is_of_groups(built.spec) for built in (self.new, self.baseline) if built is not None)

    @property
    def at_once(self) -> int:
        """How many gradings may be under way."""
        specs = [built.spec for built in (self.new, self.baseline) if built is not None]
        return min(grade_limits(spec, get_settings()).concurrency for spec in specs)


class Graded(NamedTuple):
    """A completion, what it has now, and what it had before."""

    stored: Stored
    grade: Grade
    baseline: Grade | None


def carry_out(claim: Claim) -> None:
    """Grades all that has no result yet, compares, and ends the regrade. Raises `LeaseLost`, or `JobInvalid`
    for one that must fail."""
    with scratch_folder(SCRATCH) as scratch:
        with unit_of_work() as db:
            regrade = runs.LEASES.held(db, claim)
            graders = _graders(regrade, db.get(Job, regrade.job_id) if regrade.job_id else None)
            source = source_of(db, regrade, scratch)
            total = source.count(db)
            if not total:
                raise JobInvalid("no_data", "There are no stored completions like these.", None)
            runs.LEASES.held(db, claim, total=total, progress={"phase": "grading"})
            done = regrade.done
        _grade_all(claim, source, graders, done)
    _check_rewards(claim)
    told = _compare(claim, graders)
    with unit_of_work() as db:
        runs.LEASES.finish_succeeded(db, claim, comparison=dict(told))


def _graders(regrade: Regrade, job: Job | None) -> Graders:
    new = Built(*build_job_grader(regrade.grader, regrade.project_id, "grader"))
    if regrade.baseline is not None:
        baseline = Built(*build_job_grader(regrade.baseline, regrade.project_id, "baseline"))
        return Graders(new, baseline, baseline.spec, job is not None)
    if job is None:
        return Graders(new, None, None, is_of_rollouts=False)
    spec, _ = build_job_grader(job.method["reinforcement"]["grader"], regrade.project_id)
    return Graders(new, None, spec, is_of_rollouts=True)


def _grade_all(claim: Claim, source: Source, graders: Graders, done: int) -> None:
    """Grades what has no result yet, several at a time. Raises `LeaseLost` or `JobInvalid`."""
    places = graders.at_once
    pool = ThreadPoolExecutor(places, thread_name_prefix="regrade")
    try:
        _work_through(claim, _waiting(claim, source), graders, pool, places, done)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _work_through(
    claim: Claim,
    waiting: Iterator[Stored],
    graders: Graders,
    pool: ThreadPoolExecutor,
    places: int,
    done: int,
) -> None:
    under_way: set[Future[list[Graded]]] = set()
    together = _together(waiting, graders)
    ready: list[Graded] = []
    written_at, outages = time.monotonic(), 0
    while True:
        wanted = islice(together, 2 * places - len(under_way))
        under_way |= {pool.submit(_grade, graders, some) for some in wanted}
        ended, under_way = wait(under_way, FLUSH_SECONDS, FIRST_COMPLETED)
        ready += [graded for future in ended for graded in future.result()]
        is_due = len(ready) >= ROWS_AT_ONCE or time.monotonic() - written_at > FLUSH_SECONDS
        if ready and (is_due or not under_way):
            outages = _still_out(ready, outages)
            done = _write(claim, ready, graders, done)
            ready, written_at = [], time.monotonic()
        if not under_way and not ended:
            return


def _still_out(ready: Sequence[Graded], outages: int) -> int:
    """Returns how many completions met a server that could not reply, as long as no other did not; -1 after
    that. Raises `JobInvalid` if they are too many."""
    failures = [one.grade.failure for one in ready if one.stored.ungraded is None]
    if not failures:
        return outages
    if outages < 0 or not all(failure and failure.kind.is_servers_fault for failure in failures):
        return -1
    outages += len(failures)
    if outages >= MOST_OUTAGES:
        first = failures[0].message if failures[0] else ""
        message = f"Nobody replied about the first {outages} completions: {clean(first[-SHOWN:])}"
        raise JobInvalid("server_error", message, None)
    return outages


def _waiting(claim: Claim, source: Source) -> Iterator[Stored]:
    """Yields the completions that have no result yet."""
    for page in source.pages():
        refs = [stored.ref for stored in page]
        there = select(RegradeResult.ref).where(
            RegradeResult.regrade_id == claim.row_id, RegradeResult.ref.in_(refs)
        )
        with unit_of_work() as db:
            known = set(db.scalars(there))
        yield from (stored for stored in page if stored.ref not in known)


def _together(waiting: Iterator[Stored], graders: Graders) -> Iterator[list[Stored]]:
    """Yields what is graded at once: all completions of a group where a grader compares them, else each."""
    if graders.are_of_groups:
        yield from (list(some) for _, some in groupby(waiting, key=lambda stored: stored.group))
    else:
        yield from ([stored] for stored in waiting)


def _grade(graders: Graders, some: Sequence[Stored]) -> list[Graded]:
    """Grades completions of one group. One that is alone is no group, and fails where that is needed.

    What its job has asked no grader about is no part of its group, as in training.
    """

    def graded(built: Built) -> list[Grade]:
        asked, item = [stored.sample for stored in some if stored.ungraded is None], some[0].item
        if len(some) == 1:
            found = [grade_safely(built.grader, sample, item) for sample in asked]
        else:
            found = grade_group_safely(built.grader, asked, item)
        left = iter(found)
        return [next(left) if one.ungraded is None else Grade(None, one.ungraded) for one in some]

    new = graded(graders.new)
    baseline = graded(graders.baseline) if graders.baseline is not None else [None] * len(some)
    return [Graded(*each) for each in zip(some, new, baseline, strict=True)]


def _write(claim: Claim, ready: Sequence[Graded], graders: Graders, done: int) -> int:
    """Writes results, and their number with them. Returns how many there are now. Raises `LeaseLost`."""
    rows = [_row(claim, seq, one, graders) for seq, one in enumerate(ready, done + 1)]
    with unit_of_work() as db:
        runs.made_progress(db, claim, "grading", done=done + len(rows))
        db.execute(insert(RegradeResult), rows)
    return done + len(rows)


def _row(claim: Claim, seq: int, one: Graded, graders: Graders) -> dict[str, Any]:
    stored, grade, baseline = one
    reward, failure = stored.reward, stored.failure
    if baseline is not None:
        reward, failure = baseline.value, baseline.failure.kind.value if baseline.failure else None
    return {
        "regrade_id": claim.row_id,
        "seq": seq,
        "ref": stored.ref,
        "data_row": stored.data_row,
        "text": None if graders.is_of_rollouts else clean(stored.sample.output_text),
        "reward_before": reward,
        "failure_before": failure,
        "reward": grade.value,
        "failure": grade.failure.kind.value if grade.failure else None,
        "failure_message": clean(grade.failure.message[-SHOWN:]) if grade.failure else None,
        "parts": storable(grade.parts),
        "reason": clean(grade.reason),
    }


def _check_rewards(claim: Claim) -> None:
    """Raises `JobInvalid` where the grader has graded nothing: it is out of order."""
    result = RegradeResult
    mine = select(result).where(result.regrade_id == claim.row_id)
    graded = or_(result.reward.is_not(None), result.failure == PARSE_FAULT)
    with unit_of_work() as db:
        if db.scalars(mine.where(graded).limit(1)).first() is None:
            first = db.scalars(mine.order_by(result.seq).limit(1)).one()
            message = f"The grader gave no reward to any completion. Of the first: {first.failure_message}"
            raise JobInvalid("grader_error", message, "grader")


def _compare(claim: Claim, graders: Graders) -> Mapping[str, Any]:
    """Compares both graders and writes each completion's difference. Raises `LeaseLost`."""
    result = RegradeResult
    columns = (result.seq, result.data_row, result.reward_before, result.failure_before)
    query = select(*columns, result.reward, result.failure).where(result.regrade_id == claim.row_id)
    with unit_of_work() as db:
        rows = db.execute(query.order_by(result.seq)).all()
    seqs, data_rows, rewards_before, failures_before, rewards, failures = zip(*rows, strict=True)
    after = _side(graders.new.spec, rewards, failures)
    before_spec = graders.before or graders.new.spec
    compared = compare(_side(before_spec, rewards_before, failures_before), after, data_rows)
    known = [
        {"of": claim.row_id, "number": seq, "difference": float(value), "distance": abs(float(value))}
        for seq, value in zip(seqs, compared.differences, strict=True)
        if np.isfinite(value)
    ]
    _write_differences(claim, known)
    return compared.told if graders.before else _without_past(compared.told)


def _without_past(told: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what there is to tell of one grader alone."""
    return {**{name: told[name] for name in ("completions", "compared", "after")}, "before": None}


def _write_differences(claim: Claim, known: Sequence[Mapping[str, Any]]) -> None:
    table: Any = RegradeResult.__table__
    values: dict[str, Any] = {name: bindparam(name) for name in ("difference", "distance")}
    mine = (table.c.regrade_id == bindparam("of"), table.c.seq == bindparam("number"))
    for start in range(0, len(known), ROWS_AT_ONCE):
        with unit_of_work() as db:
            runs.made_progress(db, claim, "comparing")
            statement = update(table).where(*mine).values(values)
            db.connection().execute(statement, [*known[start : start + ROWS_AT_ONCE]])


def _side(spec: GraderSpec, rewards: Sequence[float | None], failures: Sequence[str | None]) -> Side:
    """Returns a grader's rewards as training takes them: a completion that does not parse has the least."""
    known = spec.reward_range
    bounds = (known.low, known.high) if known.is_bounded else None
    least = min(0.0, bounds[0]) if bounds else 0.0
    values = [
        least if failure == PARSE_FAULT else reward for reward, failure in zip(rewards, failures, strict=True)
    ]
    return Side(np.array(values, dtype=float), threshold(spec), bounds)
