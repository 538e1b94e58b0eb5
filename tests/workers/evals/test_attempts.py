"""Runs of evals in real processes: how they end, and what is left of them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.evals import run_service, runs
from app.evals.models import EvalOutputItem, EvalRun
from app.evals.runs import LeaseLost
from app.process import descendants, is_alive
from app.webhooks.models import WebhookEvent
from tests.app.grading.judge_servers import asked, said
from tests.app.webhooks.receivers import Received, Receiver
from tests.e2e.service import wait_for
from tests.factories import Tenant, make_eval, make_eval_run, make_tenant, make_webhook_endpoint
from workers.evals.attempt import evaluate_all

LEASE = timedelta(seconds=30)
ASK = {"type": "template", "template": [{"role": "user", "content": "Say {{item.answer}}"}]}


def row(run: EvalRun) -> EvalRun:
    with unit_of_work() as db:
        return db.get_one(EvalRun, run.id)


@contextmanager
def working() -> Iterator[threading.Event]:
    """A worker that carries out runs until none is left, or until it is told to stop."""
    stopping = threading.Event()
    worker = threading.Thread(target=evaluate_all, args=("me", stopping))
    worker.start()
    try:
        yield stopping
    finally:
        stopping.set()
        worker.join()


def queued(db: Session, tenant: Tenant, letters: str) -> EvalRun:
    content = [{"item": {"answer": letter}} for letter in letters]
    source = {
        "type": "completions",
        "model": "other",
        "source": {"type": "file_content", "content": content},
        "input_messages": ASK,
    }
    run = make_eval_run(db, make_eval(db, tenant.project_id), data_source=source)
    db.commit()
    return run


class Gated:
    """Answers letters before `last` at once, all others once it is let go."""

    def __init__(self, last: str) -> None:
        self.last = last
        self.let_go = threading.Event()
        self.reached = threading.Event()

    def __call__(self, got: Received) -> Any:
        letter = asked(got)["messages"][0]["content"].removeprefix("Say ")
        if letter >= self.last:
            self.reached.set()
            self.let_go.wait(60)
        return said(letter)


def judged(db: Session, run: EvalRun) -> int:
    query = select(func.count()).select_from(EvalOutputItem).where(EvalOutputItem.run_id == run.id)
    with unit_of_work() as db:
        return db.scalars(query.where(EvalOutputItem.status != "waiting")).one()


def test_a_run_whose_process_is_killed_goes_on_with_what_it_has_not_judged(
    db: Session, tenant: Tenant, server: Receiver, other_model: Callable[..., None]
) -> None:
    make_webhook_endpoint(db, tenant.project_id, types=("eval.run.succeeded",))
    other_model(server, concurrency=1)
    gate = Gated("d")
    server.answer = gate
    run = queued(db, tenant, "abcde")
    with working():
        wait_for(lambda: judged(db, run) == 3, what="three items")
        killed = [pid for pid in descendants(os.getpid()) if run.id in command_of(pid)]
        os.kill(killed[0], signal.SIGKILL)
        wait_for(lambda: row(run).attempt == 2, what="another attempt")
        gate.let_go.set()
        wait_for(lambda: row(run).status == "completed", what="its end")
    done = row(run)
    assert done.result_counts == {"total": 5, "passed": 5, "failed": 0, "errored": 0}
    told = [asked(got)["messages"][0]["content"] for got in server.received]
    assert [told.count(f"Say {letter}") for letter in "abc"] == [1, 1, 1]
    assert done.per_model_usage[0]["invocation_count"] == 5
    (event,) = db.scalars(select(WebhookEvent)).all()
    assert (event.type, run.id in event.body) == ("eval.run.succeeded", True)


def command_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""


def test_a_canceled_run_stops_and_keeps_what_was_judged(
    db: Session, tenant: Tenant, server: Receiver, other_model: Callable[..., None]
) -> None:
    other_model(server, concurrency=1)
    gate = Gated("b")
    server.answer = gate
    run = queued(db, tenant, "abc")
    with working():
        wait_for(lambda: judged(db, run) == 1, what="an item")
        children = [pid for pid in descendants(os.getpid()) if run.id in command_of(pid)]
        with unit_of_work() as other:
            run_service.cancel(other, tenant.project_id, run.eval_id, run.id)
        wait_for(lambda: not any(is_alive(pid) for pid in children), what="the process to end")
        gate.let_go.set()
    assert children
    assert (row(run).status, row(run).result_counts["total"]) == ("canceled", 1)
    assert judged(db, run) == 1


@pytest.mark.long
def test_a_stopping_worker_gives_its_run_back(
    db: Session, tenant: Tenant, server: Receiver, other_model: Callable[..., None]
) -> None:
    other_model(server, concurrency=1)
    gate = Gated("a")
    server.answer = gate
    run = queued(db, tenant, "a")
    with working() as stopping:
        wait_for(gate.reached.is_set, what="a question")
        stopping.set()
        wait_for(lambda: row(run).status == "queued", what="the run to be given back")
        gate.let_go.set()
    assert (row(run).fruitless_attempts, row(run).lease_owner) == (0, None)


@pytest.mark.long
def test_a_run_that_always_crashes_fails_after_three_attempts(db: Session, tenant: Tenant) -> None:
    """Its criterion is no grader, which only a fault of ours could leave in a row."""
    run = make_eval_run(db, make_eval(db, tenant.project_id, testing_criteria=[{"id": "x"}]), [{"item": {}}])
    db.commit()
    with working():
        wait_for(lambda: row(run).status == "failed", what="the failure")
    failed = row(run)
    assert failed.attempt == 3
    assert failed.error == {
        "code": "server_error",
        "message": "The run ended early in each of its attempts. Of the last one: it exited with code 1.",
    }


def test_only_one_worker_has_a_run_and_a_silent_one_loses_it(db: Session, tenant: Tenant) -> None:
    run = make_eval_run(db, make_eval(db, tenant.project_id))
    db.commit()
    with unit_of_work() as other:
        first = runs.claim_next(other, "first", LEASE)
        assert first is not None
        assert runs.claim_next(other, "second", LEASE) is None
        assert not runs.has_work(other)
    db.execute(update(EvalRun).values(lease_expires_at=func.now() - LEASE))
    db.commit()
    with unit_of_work() as other:
        assert runs.has_work(other)
        second = runs.claim_next(other, "second", LEASE)
    assert second is not None
    assert second.attempt == 2
    with pytest.raises(LeaseLost), unit_of_work() as other:
        runs.made_progress(other, first, total=1)
    assert row(run).total is None


def test_projects_take_turns(db: Session, tenant: Tenant) -> None:
    mine = [make_eval_run(db, make_eval(db, tenant.project_id)).id for _ in range(2)]
    db.commit()
    theirs = make_eval_run(db, make_eval(db, make_tenant(db, "other").project_id)).id
    db.commit()
    taken = []
    for _ in range(3):
        with unit_of_work() as other:
            claim = runs.claim_next(other, "me", LEASE)
        assert claim is not None
        taken.append(claim.run_id)
    assert taken[0] in mine
    assert taken[1] == theirs
    assert set(taken) == {*mine, theirs}
