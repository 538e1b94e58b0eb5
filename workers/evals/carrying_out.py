"""Carries out one run: its data becomes items that wait; each is answered, judged and written as it is done.

What is written stays: another attempt goes on with the items that still wait.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from itertools import islice
from typing import Any, NamedTuple

from anyio.from_thread import start_blocking_portal
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.disk import scratch_folder
from app.errors import ApiError
from app.evals import answerers, answers, runs
from app.evals.data_sources import sampling
from app.evals.models import WAITING, Eval, EvalOutputItem, EvalRun
from app.evals.runs import Claim
from app.evals.tally import Tally
from app.grading.limits import grade_limits
from app.ids import random_id
from app.settings import Settings, get_settings
from graders.types import Usage, add_usages
from workers.evals import judging, questions, rows
from workers.evals.asking import Model, model_of
from workers.evals.faults import AnswerFailed, RunInvalid
from workers.evals.given import given_answer
from workers.jobs.job_data import SCRATCH

ROWS_AT_ONCE = 500
"""Items that are written or read together. Chosen, not measured."""
FLUSH_SECONDS = 1.0
"""How long a result waits to be written with others. Chosen, not measured: a person who watches sees it."""
MOST_OUTAGES = 32
"""Items, the first ones of an attempt, for which a server could not reply: then the run fails. Chosen, not
measured: each of them was asked for again and again."""


class Waiting(NamedTuple):
    """An item that is to be judged."""

    id: str
    item: dict[str, Any]
    given: dict[str, Any] | None


class Done(NamedTuple):
    """What an item has come to. `outage` says what a server said that could not reply."""

    id: str
    status: str
    results: list[dict[str, Any]]
    sample: dict[str, Any]
    usage: Usage
    outage: str | None


def carry_out(claim: Claim) -> None:
    """Judges all that waits and ends the run. Raises `LeaseLost`, or `RunInvalid` for one that must fail."""
    settings = get_settings()
    with unit_of_work() as db:
        run = runs.held(db, claim)
        of = db.get_one(Eval, run.eval_id)
        answerer = _answerer(db, run, settings)
    criteria = judging.build(of.testing_criteria, claim.project_id, settings)
    if run.total is None:
        _read(claim, run, of)
    source = run.data_source
    params = sampling(source["type"], source.get("sampling_params")) if answerer else {}
    with ExitStack() as stack:
        model = None
        if answerer is not None:
            portal = stack.enter_context(start_blocking_portal())
            model = model_of(answerer, claim.run_id, claim.project_id, params, settings, portal)
        work = _Work(of, criteria, model, source.get("input_messages"), params)
        places = (
            model.at_once if model else min(grade_limits(one.spec, settings).concurrency for one in criteria)
        )
        _judge_all(claim, work, Tally(run, [one.id for one in criteria]), places)
    with unit_of_work() as db:
        runs.finish_completed(db, claim)


class _Work:
    """What is done with each item. Safe to call from many threads."""

    def __init__(
        self,
        of: Eval,
        criteria: Sequence[judging.Criterion],
        model: Model | None,
        input_messages: Mapping[str, Any] | None,
        params: Mapping[str, Any],
    ) -> None:
        self._criteria = criteria
        self._model = model
        self._params = params
        self._question = questions.question_of(input_messages)
        self._schema = judging.item_check(of.data_source_config)

    def do(self, item: Waiting) -> Done:
        asked: answers.Messages = item.item.get("input", []) if _is_logged(item) else []
        try:
            judging.check_item(self._schema, item.item)
            if self._model is None:
                answer = None if item.given is None else given_answer(item.given)
            else:
                asked = self._question(item.item)
                answer = self._model.answer(asked)
        except AnswerFailed as failed:
            sample = answers.told(asked, None, self._params, failed.error)
            return Done(item.id, "error", [], sample, {}, str(failed) if failed.is_outage else None)
        judged = judging.judge(self._criteria, answer.sample if answer else None, item.item)
        spent = [judged.usage]
        if answer is not None and self._model is not None:
            spent.append({answer.model: answer.usage})
        outage = next((one["error"]["message"] for one in judged.results if "error" in one), "")
        return Done(
            item.id,
            judged.status,
            judged.results,
            answers.told(asked, answer, self._params),
            add_usages(spent),
            outage if judged.is_outage else None,
        )


def _is_logged(item: Waiting) -> bool:
    """Tells whether an item says itself what was asked, as those of logs do."""
    asked = item.item.get("input")
    return isinstance(asked, list) and all(isinstance(message, dict) for message in asked)


def _answerer(db: Session, run: EvalRun, settings: Settings) -> answerers.Answerer | None:
    """Returns who answers. Raises `RunInvalid` where that is not there any more."""
    try:
        return answerers.find(db, run.project_id, run.data_source, settings)
    except ApiError as fault:
        raise RunInvalid(fault.code or "invalid_model", fault.message) from None


def _read(claim: Claim, run: EvalRun, of: Eval) -> None:
    """Makes an item that waits of each row of the data. Raises `RunInvalid`."""
    with scratch_folder(SCRATCH) as scratch:
        file = rows.find_file(run, scratch)
        with unit_of_work() as db:
            runs.held(db, claim)
            found = rows.rows_of(db, run, of, file)
            total = 0
            while some := list(islice(found, ROWS_AT_ONCE)):
                db.execute(
                    insert(EvalOutputItem), [_row(claim, total + n, row) for n, row in enumerate(some, 1)]
                )
                total += len(some)
            runs.made_progress(db, claim, total=total)


def _row(claim: Claim, seq: int, row: rows.SourceRow) -> dict[str, Any]:
    return {
        "id": random_id("outputitem_"),
        "run_id": claim.run_id,
        "seq": seq,
        "datasource_item_id": row.place,
        "datasource_item": row.item,
        "given": row.given,
    }


def _judge_all(claim: Claim, work: _Work, tally: Tally, places: int) -> None:
    """Judges every item that waits, so many at a time. Raises `LeaseLost` or `RunInvalid`."""
    pool = ThreadPoolExecutor(places, thread_name_prefix="eval")
    try:
        _work_through(claim, work, tally, pool, places)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _work_through(claim: Claim, work: _Work, tally: Tally, pool: ThreadPoolExecutor, places: int) -> None:
    waiting, outages = _waiting(claim.run_id), _Outages()
    under_way: set[Future[Done]] = set()
    done: list[Done] = []
    written_at = time.monotonic()
    while True:
        under_way |= {pool.submit(work.do, item) for item in islice(waiting, 2 * places - len(under_way))}
        ended, under_way = wait(under_way, FLUSH_SECONDS, FIRST_COMPLETED)
        done += [future.result() for future in ended]
        is_due = len(done) >= ROWS_AT_ONCE or time.monotonic() - written_at > FLUSH_SECONDS
        if done and (is_due or not under_way):
            _write(claim, tally, done)
            outages.see(done)
            done, written_at = [], time.monotonic()
        if not under_way and not ended:
            return


def _waiting(run_id: str) -> Iterator[Waiting]:
    """Yields the items that wait, in the order of the data."""
    seen = 0
    while True:
        query = select(EvalOutputItem).where(
            EvalOutputItem.run_id == run_id, EvalOutputItem.status == WAITING, EvalOutputItem.seq > seen
        )
        with unit_of_work() as db:
            page = db.scalars(query.order_by(EvalOutputItem.seq).limit(ROWS_AT_ONCE)).all()
        if not page:
            return
        yield from (Waiting(one.id, one.datasource_item, one.given) for one in page)
        seen = page[-1].seq


def _write(claim: Claim, tally: Tally, done: Sequence[Done]) -> None:
    """Writes results, and the counts with them. Raises `LeaseLost`."""
    for one in done:
        tally.add(one.status, one.results, one.usage)
    columns = ("id", "status", "results", "sample")
    values = [{name: getattr(one, name) for name in columns} | {"created_at": func.now()} for one in done]
    with unit_of_work() as db:
        runs.made_progress(db, claim, **tally.columns())
        for each in values:
            item_id = each.pop("id")
            db.execute(update(EvalOutputItem).where(EvalOutputItem.id == item_id).values(each))


class _Outages:
    """Notices that nobody can reply at all."""

    def __init__(self) -> None:
        self._count = 0
        self._is_over = False

    def see(self, done: Sequence[Done]) -> None:
        """Raises `RunInvalid` once too many items, and no other one, met a server that could not reply."""
        self._is_over = self._is_over or any(one.outage is None for one in done)
        self._count += len(done)
        if not self._is_over and self._count >= MOST_OUTAGES:
            first = next(one.outage for one in done if one.outage is not None)
            raise RunInvalid("server_error", f"Nobody replied to the first {self._count} items: {first}")
