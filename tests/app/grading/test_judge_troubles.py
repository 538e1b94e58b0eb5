"""Judges that are slow, broken, away or less able than asked for."""

from __future__ import annotations

import threading

import pytest

from app.grading.judges import Judges
from graders import FailureKind, Sample
from tests.app.grading.judge_servers import (
    KEY,
    Answered,
    answered,
    asked,
    graded,
    grader_of,
    in_turn,
    judges_at,
    refused,
    said,
    scored,
    settings_with,
)
from tests.app.webhooks.receivers import Received, receiver


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        pytest.param(
            said(None, refusal="I will not."), FailureKind.MODEL_REFUSAL, "I will not.", id="refusal"
        ),
        pytest.param(
            said(None, finish_reason="content_filter"), FailureKind.MODEL_REFUSAL, "filter", id="filter"
        ),
        pytest.param(
            said('{"st', finish_reason="length"), FailureKind.MODEL_MAX_TOKENS, "token limit", id="length"
        ),
        pytest.param(
            refused(404, "The model does not exist"),
            FailureKind.MODEL_SERVER,
            "404: The model does not",
            id="404",
        ),
        pytest.param(refused(401, f"Wrong key {KEY}."), FailureKind.MODEL_SERVER, "Wrong key ***.", id="401"),
        pytest.param(
            refused(400, "Unsupported value: 'temperature'"),
            FailureKind.MODEL_SERVER,
            "'temperature'",
            id="400",
        ),
        pytest.param(
            refused(400, "Filtered", code="content_filter"),
            FailureKind.MODEL_REFUSAL,
            "Filtered",
            id="azure-filter",
        ),
        pytest.param(
            refused(429, "Pay first", code="insufficient_quota"),
            FailureKind.MODEL_SERVER,
            "Pay first",
            id="quota",
        ),
        pytest.param(answered({"choices": []}), FailureKind.MODEL_SERVER, "no message", id="no-choice"),
        pytest.param(answered({"choices": "x"}), FailureKind.MODEL_SERVER, "no message", id="choices-text"),
    ],
)
def test_what_no_second_try_would_mend_fails_at_once(answer: Answered, kind: FailureKind, words: str) -> None:
    calls = []

    def answering(received: Received) -> Answered:
        calls.append(received)
        return answer

    grade = graded(answering)
    assert grade.failure is not None
    assert grade.failure.kind is kind
    assert words in grade.failure.message
    assert KEY not in grade.failure.message
    assert len(calls) == 1


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(refused(429, "Slow down", retry_after="0"), id="429-retry-after"),
        pytest.param(refused(500, "Oops", retry_after="0"), id="500"),
        pytest.param((502, {"content-type": "text/html"}, b"<html>Bad gateway"), id="502-html"),
        pytest.param(None, id="connection-cut"),
        pytest.param((200, {"content-type": "application/json"}, b'{"choices": ['), id="half-a-body"),
        pytest.param((200, {"content-type": "text/html"}, b"<html>hello"), id="200-html"),
        pytest.param(
            (200, {"content-type": "application/json", "content-length": "999"}, b"{"), id="short-body"
        ),
    ],
)
def test_trouble_that_passes_is_waited_out(trouble: Answered | None) -> None:
    assert graded(in_turn(trouble, scored(0.5))).value == 0.5


def test_trouble_that_stays_is_a_server_error_after_every_try() -> None:
    calls = []

    def answering(received: Received) -> Answered:
        calls.append(received)
        return refused(503, "Still down", retry_after="0")

    grade = graded(answering)
    assert grade.failure is not None
    assert grade.failure.kind is FailureKind.MODEL_SERVER
    assert grade.failure.message == "The judge 'judge' answered 503: Still down"
    assert len(calls) == 3


def test_a_judge_that_asks_for_more_time_than_there_is_is_not_waited_for() -> None:
    grade = graded(refused(429, "Tomorrow", retry_after="86400"))
    assert grade.failure is not None
    assert grade.failure.message.endswith("429: Tomorrow")


def test_a_judge_that_does_not_answer_in_time_is_a_server_error() -> None:
    release = threading.Event()

    def answering(_: Received) -> Answered:
        release.wait(30)
        return scored(1)

    with receiver(answering) as server:
        grade = grader_of(judges_at(server, timeout=0.2, retries=0)).grade(Sample(""), {})
        release.set()
    assert grade.failure is not None
    assert grade.failure.kind is FailureKind.MODEL_SERVER
    assert "did not answer within" in grade.failure.message


def test_a_judge_that_is_not_there_is_a_server_error_that_tells_no_address() -> None:
    judges = Judges(settings_with(judges={"judge": {"base_url": "http://127.0.0.1:9/v1", "retries": 0}}))
    grade = grader_of(judges).grade(Sample(""), {})
    assert grade.failure is not None
    assert grade.failure.kind is FailureKind.MODEL_SERVER
    assert "127.0.0.1" not in grade.failure.message


def test_a_server_without_schemas_is_asked_for_less_and_the_grade_says_so() -> None:
    def answering(received: Received) -> Answered:
        form = asked(received).get("response_format", {}).get("type", "text")
        if form != "text":
            return refused(400, f"response_format of type {form} is not supported")
        return scored(0.5)

    with receiver(answering) as server:
        grader = grader_of(judges_at(server))
        first, second = (grader.grade(Sample(text), {}) for text in ("a", "b"))
        assert len(server.received) == 4, "the second question must not try what was refused"
    assert (first.value, second.value) == (0.5, 0.5)
    assert second.reason == "reads: fine [the judge's server cannot be held to a JSON schema]"


def test_a_fixed_form_of_reply_is_never_weakened() -> None:
    grade = graded(refused(400, "json_schema is not supported"), reply="json_schema")
    assert grade.failure is not None
    assert grade.failure.kind is FailureKind.MODEL_SERVER
