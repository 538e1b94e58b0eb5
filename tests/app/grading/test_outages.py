"""Servers that are down while a training asks them: waited for, and lost for good after a limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.grading.judges import Judges, TenantJudge
from app.grading.outages import Outages, with_patience
from graders import FailureKind, Grade, Grader, Sample, build_grader, parse_grader
from graders.services import Services
from graders.types import GradeFailed
from tests.app.grading.judge_servers import (
    GRADER,
    Answered,
    Answering,
    asked,
    in_turn,
    judges_at,
    refused,
    scored,
)
from tests.app.webhooks.receivers import Received, receiver

LIMIT = 0.4
AWAY = refused(503, "The model is being loaded.")


def patient(judges: Judges, limit: float = LIMIT) -> Grader:
    services = with_patience(Services(judge=TenantJudge(judges, "proj_a")), limit, again=0.05)
    return build_grader(parse_grader(GRADER), services)


def graded(answer: Answering, *texts: str, limit: float = LIMIT) -> list[Grade]:
    """What becomes of some completions that are graded side by side."""
    with receiver(answer) as server, ThreadPoolExecutor(len(texts)) as pool:
        grader = patient(judges_at(server, retries=0), limit)
        return list(pool.map(lambda text: grader.grade(Sample(text), {}), texts))


def test_a_judge_that_comes_back_in_time_has_graded_everything() -> None:
    (grade,) = graded(in_turn(AWAY, AWAY, scored(0.5)), "hello", limit=60)
    assert (grade.value, grade.lost) == (0.5, "")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(AWAY, "answered 503: The model is being loaded.", id="5xx"),
        pytest.param(refused(429, "Slow down"), "answered 429: Slow down", id="429"),
        pytest.param(refused(429, "Pay", "insufficient_quota"), "answered 429: Pay", id="spent-quota"),
        pytest.param(refused(402, "No balance"), "answered 402: No balance", id="no-money"),
        pytest.param(None, "could not be reached", id="connection"),
    ],
)
def test_a_judge_that_stays_away_is_lost_by_name_for_all(answer: object, said: str) -> None:
    grades = graded(lambda _: answer, "a", "b", "c")  # type: ignore[arg-type, return-value]
    assert {grade.value for grade in grades} == {None}
    assert all(grade.lost.startswith("The judge 'judge' has answered nothing for") for grade in grades)
    assert all(said in grade.lost for grade in grades)


def test_a_lost_judge_is_not_asked_again() -> None:
    with receiver(lambda _: AWAY) as server:
        grader = patient(judges_at(server, retries=0))
        assert grader.grade(Sample("a"), {}).lost
        calls = len(server.received)
        assert grader.grade(Sample("b"), {}).lost
        assert len(server.received) == calls


@pytest.mark.parametrize(
    "answer", [refused(400, "No such field"), refused(401, "Wrong key"), scored("much")], ids=str
)
def test_what_a_judge_refuses_is_a_failure_at_once(answer: object) -> None:
    (grade,) = graded(lambda _: answer, "a", limit=60)  # type: ignore[arg-type, return-value]
    assert grade.failure is not None
    assert grade.lost == ""


def test_an_answer_over_which_a_judge_breaks_is_no_outage_while_others_are_answered() -> None:
    def answer(received: Received) -> Answered:
        is_poison = "poison" in str(asked(received))
        time.sleep(0.1 if is_poison else 0.01)  # others are answered meanwhile
        return AWAY if is_poison else scored(1)

    with receiver(answer) as server, ThreadPoolExecutor(1) as pool:
        grader = patient(judges_at(server, retries=0), limit=60)
        poison = pool.submit(grader.grade, Sample("poison"), {})
        fine = []
        while not poison.done():
            fine.append(grader.grade(Sample(f"fine {len(fine)}"), {}))
    failed = poison.result()
    assert failed.failure is not None
    assert (failed.failure.kind, failed.lost) == (FailureKind.MODEL_SERVER, "")
    assert {grade.value for grade in fine} == {1}


def test_a_call_that_a_server_broke_as_it_went_down_is_made_again() -> None:
    """Others, which began later, were answered before it went down."""
    outages, is_asked, is_answered = Outages(60, again=0.05), threading.Event(), threading.Event()
    left = [1]

    def broken() -> str:
        if left:
            is_asked.set()
            is_answered.wait(10)
            left.pop()
            raise GradeFailed(FailureKind.MODEL_SERVER, "broken", is_away=True)
        return "late"

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(outages.through, "it", broken)
        is_asked.wait(10)
        assert outages.through("it", lambda: "soon") == "soon"
        is_answered.set()
        assert first.result() == "late"


def test_without_a_limit_nothing_is_waited_for() -> None:
    services = Services()
    assert with_patience(services, 0) is services


def test_a_server_that_has_answered_since_is_not_blamed_for_what_was_before() -> None:
    limit = 1.0
    outages = Outages(limit, again=0.05)
    turns: list[Callable[[], int]] = []

    def away() -> int:
        raise GradeFailed(FailureKind.MODEL_SERVER, "away", is_away=True)

    turns += [away, lambda: 1, away, lambda: 2]
    assert [outages.through("it", lambda: turns.pop(0)()) for _ in range(2)] == [1, 2]
    time.sleep(limit)  # the first outage began longer ago than the limit
    turns += [away, lambda: 3]
    assert outages.through("it", lambda: turns.pop(0)()) == 3
