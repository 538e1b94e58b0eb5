"""Regrades on a worker: what is graded, what is compared, and how they go on after a kill."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.jobs.leases import Claim, LeaseLost
from app.jobs.models import Job
from app.regrades import service
from app.regrades.models import Regrade, RegradeResult
from app.regrades.runs import LEASES
from tests.app.grading.judge_servers import Answered, answered
from tests.app.webhooks.receivers import Received, Receiver, receiver
from tests.e2e.service import wait_for
from tests.factories import make_regrade, make_rollout, make_stored_chat
from tests.workers.rows import data_rows, make_job
from workers.jobs.job_data import JobInvalid
from workers.regrades import attempt
from workers.regrades.carrying_out import carry_out

LEASE = timedelta(seconds=30)
EXACT = {
    "type": "string_check",
    "name": "exact",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.letter}}",
}


def make_graded_job(db: Session, **values: Any) -> Job:
    """A job over the letters a, e, i, o, whose completions are graded as it did: is the letter in them?"""
    job = make_job(db, status="succeeded", validation=data_rows(6)[4:], **values)
    make_rollout(db, job, 1, 0, text="a", reward=1.0)
    make_rollout(db, job, 1, 1, text="E!", reward=1.0)
    make_rollout(db, job, 2, 2, text="x", reward=0.0)
    make_rollout(db, job, 2, 0, split="valid", text="u", reward=1.0)
    make_rollout(db, job, 2, 1, split="control", text="r", reward=1.0)
    db.commit()
    return job


def regrade_of(db: Session, job: Job, **columns: Any) -> Regrade:
    regrade = make_regrade(db, job, **{"grader": EXACT} | columns)
    db.commit()
    return regrade


def claimed(db: Session) -> Claim:
    claim = LEASES.claim_next(db, "test", LEASE)
    db.commit()
    assert claim is not None
    return claim


def results(db: Session, regrade: Regrade) -> dict[str, RegradeResult]:
    db.expire_all()
    mine = RegradeResult.regrade_id == regrade.id
    return {one.ref: one for one in db.scalars(select(RegradeResult).where(mine).order_by(RegradeResult.seq))}


def test_rollouts_are_graded_anew_and_both_graders_compared(db: Session) -> None:
    regrade = regrade_of(db, make_graded_job(db))
    carry_out(claimed(db))
    found = results(db, regrade)
    assert {ref: (one.reward_before, one.reward, one.difference) for ref, one in found.items()} == {
        "train-1-0-0": (1.0, 1.0, 0.0),
        "train-1-1-0": (1.0, 0.0, -1.0),
        "train-2-2-0": (0.0, 0.0, 0.0),
        "valid-2-0-0": (1.0, 1.0, 0.0),
    }
    db.refresh(regrade)
    assert (regrade.status, regrade.done, regrade.total, regrade.lease_owner) == ("succeeded", 4, 4, None)
    assert regrade.comparison is not None
    assert regrade.comparison["passes"] == {"both": 2, "before_only": 1, "after_only": 0, "neither": 1}
    assert [row["data_row"] for row in regrade.comparison["rows_that_differ_most"]] == ["train-1"]


def test_completions_that_no_grader_was_asked_about_keep_their_failure(db: Session) -> None:
    """Their text would even be right."""
    job = make_graded_job(db)
    failed: dict[str, Any] = {"reward": None, "failure": "sample_parse_error"}
    unparsed = {"role": "assistant", "content": "", "unparsed": "Two answers."}
    episode = {"trace_id": "t", "messages": [unparsed]}
    make_rollout(db, job, 3, 0, text="a", message=unparsed, **failed)
    make_rollout(db, job, 3, 1, text="e", episode=episode, **failed)
    told = {"reward": None, "failure": "user_simulator_error", "failure_message": "It is away."}
    make_rollout(db, job, 3, 2, text="i", **told)
    make_rollout(db, job, 3, 3, text="o", **failed)  # by its grader
    db.commit()
    regrade = regrade_of(db, job, source={"type": "rollouts", "first_step": 3})
    carry_out(claimed(db))
    found = [(one.reward, one.failure, one.failure_message) for one in results(db, regrade).values()]
    assert sorted(found, key=str) == sorted(
        [
            (None, "sample_parse_error", "Two answers."),
            (None, "sample_parse_error", "Two answers."),
            (None, "user_simulator_error", "It is away."),
            (1.0, None, None),
        ],
        key=str,
    )


@pytest.mark.parametrize(
    ("source", "refs"),
    [
        ({"split": "valid"}, {"valid-2-0-0"}),
        ({"split": "control"}, {"control-2-1-0"}),
        ({"first_step": 2}, {"train-2-2-0", "valid-2-0-0"}),
        ({"split": "train", "last_step": 1}, {"train-1-0-0", "train-1-1-0"}),
    ],
    ids=("validation", "control", "from a step on", "split and steps"),
)
def test_only_what_was_asked_for_is_graded(db: Session, source: dict[str, Any], refs: set[str]) -> None:
    regrade = regrade_of(db, make_graded_job(db), source={"type": "rollouts", **source})
    carry_out(claimed(db))
    assert results(db, regrade).keys() == refs


def test_held_out_and_greedy_completions_find_their_rows(db: Session) -> None:
    letters = data_rows(10)
    unseen = make_job(db, status="succeeded", training=letters[:1], validation=letters[1:7])
    make_rollout(db, unseen, 1, 3, split="greedy", text=letters[4]["letter"], reward=0.0)
    few = make_job(db, status="succeeded", training=letters, validation=letters[:1])
    make_rollout(db, few, 1, 3, split="greedy", text=letters[3]["letter"], reward=0.0)
    held_out = make_job(db, status="succeeded", training=letters)
    make_rollout(db, held_out, 1, 9, split="valid", text=letters[9]["letter"], reward=0.0)
    db.commit()
    for job in (unseen, few, held_out):
        regrade = regrade_of(db, job)
        carry_out(claimed(db))
        assert [one.reward for one in results(db, regrade).values()] == [1.0]


def test_a_completion_that_does_not_parse_has_the_least(db: Session) -> None:
    job = make_graded_job(db)
    make_rollout(db, job, 3, 0, text="a", reward=None, failure="sample_parse_error", failure_message="no")
    make_rollout(db, job, 3, 1, text="e", reward=None, failure="other_error", failure_message="no")
    regrade = regrade_of(db, job, source={"type": "rollouts", "first_step": 3})
    carry_out(claimed(db))
    found = results(db, regrade)
    assert (found["train-3-0-0"].difference, found["train-3-1-0"].difference) == (1.0, None)
    db.refresh(regrade)
    assert regrade.comparison is not None
    assert (regrade.comparison["compared"], regrade.comparison["before"]["graded"]) == (1, 1)


def test_another_attempt_goes_on_where_the_one_before_was(db: Session) -> None:
    regrade = regrade_of(db, make_graded_job(db), done=1)
    of = {"regrade_id": regrade.id, "data_row": "train-0", "parts": {}, "reason": "by hand"}
    db.add(RegradeResult(seq=1, ref="train-1-0-0", reward_before=1.0, reward=0.25, **of))
    db.commit()
    carry_out(claimed(db))
    found = results(db, regrade)
    assert [one.seq for one in found.values()] == [1, 2, 3, 4]
    assert (found["train-1-0-0"].reward, found["train-1-0-0"].difference) == (0.25, -0.75)


def test_an_attempt_that_lost_its_lease_writes_nothing(db: Session) -> None:
    regrade = regrade_of(db, make_graded_job(db))
    claim = claimed(db)
    service.cancel(db, regrade.project_id, regrade.id)
    db.commit()
    with pytest.raises(LeaseLost):
        carry_out(claim)
    assert results(db, regrade) == {}


def test_a_baseline_grades_too(db: Session) -> None:
    regrade = regrade_of(db, make_graded_job(db), baseline={**EXACT, "operation": "ne"})
    carry_out(claimed(db))
    assert {ref: (one.reward_before, one.reward) for ref, one in results(db, regrade).items()} == {
        "train-1-0-0": (0.0, 1.0),
        "train-1-1-0": (1.0, 0.0),
        "train-2-2-0": (1.0, 0.0),
        "valid-2-0-0": (0.0, 1.0),
    }


def test_stored_completions_are_graded_by_what_evals_see_of_them(db: Session) -> None:
    job = make_graded_job(db)
    chats = [make_stored_chat(db, job.project_id) for _ in range(3)]
    asked = {**EXACT, "input": "{{item.input[0].content}}, {{sample.output_text}}", "reference": "Hello, Hi."}
    limited = {"type": "stored_completions", "limit": 2, "metadata": {"a": "1"}, "model": "cherry-nano"}
    regrade = regrade_of(db, job, job_id=None, grader=asked, source=limited)
    carry_out(claimed(db))
    found = results(db, regrade)
    assert sorted(found) == sorted(f"{chat.id}/0" for chat in chats)[:2]  # all were made at one time
    assert {(one.reward, one.text, one.reward_before) for one in found.values()} == {(1.0, "Hi.", None)}
    db.refresh(regrade)
    assert regrade.comparison is not None
    assert (regrade.comparison["before"], regrade.comparison["after"]["passed"]) == (None, 2)


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        pytest.param(
            {"source": {"type": "stored_completions"}, "job_id": None}, "no_data", id="nothing stored"
        ),
        pytest.param({"grader": {**EXACT, "type": "score_model"}}, None, id="a grader that cannot be built"),
    ],
)
def test_what_cannot_be_carried_out_is_told(db: Session, columns: dict[str, Any], code: str | None) -> None:
    regrade_of(db, make_graded_job(db), **columns)
    with pytest.raises(JobInvalid) as fault:
        carry_out(claimed(db))
    assert code in (None, fault.value.code)


def test_a_grader_that_grades_nothing_is_out_of_order(db: Session) -> None:
    regrade = regrade_of(db, make_graded_job(db), grader={**EXACT, "reference": "{{item.colour}}"})
    with pytest.raises(JobInvalid, match=r"no reward to any completion.*item\.colour") as fault:
        carry_out(claimed(db))
    assert (fault.value.code, fault.value.param) == ("grader_error", "grader")
    assert {one.failure for one in results(db, regrade).values()} == {"invalid_variable_error"}


@pytest.fixture
def grading_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A server that grades, and that a worker may call although it is here."""
    with receiver() as server:
        monkeypatch.setenv("CHERRY_OUTBOUND_ALLOW", "127.0.0.1")
        monkeypatch.setenv("CHERRY_OUTBOUND_ALLOW_HTTP", "true")
        monkeypatch.setenv("CHERRY_OUTBOUND_PORTS", str(server.port))
        yield server


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_process_is_followed_by_one_that_goes_on(db: Session, grading_server: Receiver) -> None:
    held, go_on = threading.Event(), threading.Event()
    graded: Counter[str] = Counter()

    def answer(came: Received) -> Answered:
        text = json.loads(came.body)["sample"]["output_text"]
        graded[text] += 1
        if text == "x" and not go_on.is_set():
            held.set()
            go_on.wait(60)
        return answered({"score": 0.5})

    grading_server.answer = answer
    regrade = regrade_of(
        db, make_graded_job(db), grader={"type": "endpoint", "name": "e", "url": grading_server.url}
    )
    stopping, claim = threading.Event(), claimed(db)
    worker = threading.Thread(target=attempt.carry_out, args=(claim, stopping))
    worker.start()
    try:
        assert held.wait(60)
        wait_for(lambda: len(results(db, regrade)) == 3)
    finally:
        stopping.set()  # the worker stops: its process is killed, and the regrade given back
        worker.join()
    db.refresh(regrade)
    assert (regrade.status, regrade.done, regrade.fruitless_attempts) == ("queued", 3, 0)
    go_on.set()
    attempt.carry_out(claimed(db), threading.Event())
    db.refresh(regrade)
    assert (regrade.status, regrade.done, regrade.attempt) == ("succeeded", 4, 2)
    assert graded == {"a": 1, "E!": 1, "u": 1, "x": 2}
    with unit_of_work() as other:
        assert other.get_one(Regrade, regrade.id).comparison is not None
