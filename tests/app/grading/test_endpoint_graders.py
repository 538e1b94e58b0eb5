"""`endpoint` graders against a real local server, and `cosine` against a real local embedding model."""

from __future__ import annotations

import gzip
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.grading.endpoints import MAX_BYTES, Endpoints
from app.grading.headers import opened
from app.grading.services import forget_services, grader_services
from app.jobs.models import Job
from app.outbound import OutboundRules, rules_of
from app.settings import get_settings
from graders import FailureKind, Grade, Grader, GraderInvalid, Sample, TokenUsage, build_grader, parse_grader
from graders.services import Services
from tests.app.grading.judge_servers import Answered, answered, asked, settings_with
from tests.app.webhooks.receivers import Received, Receiver, receiver
from tests.factories import Tenant, make_file

SECRET = "Bearer s3cr3t-of-the-user"
LOOPBACK = rules_of(settings_with(outbound_allow="127.0.0.1", outbound_allow_http=True))


def grader_at(
    server: Receiver, rules: OutboundRules = LOOPBACK, seconds: float = 20.0, **spec: Any
) -> Grader:
    raw = {"type": "endpoint", "name": "own", "url": server.url, "headers": {"X-Auth": SECRET}, **spec}
    return build_grader(parse_grader(raw), Services(endpoint=Endpoints(rules, 8, seconds)))


def graded(*answers: Answered | None, sample: str = "out", **options: Any) -> tuple[Grade, list[Received]]:
    left = list(answers)
    with receiver(lambda _: left.pop(0) if len(left) > 1 else left[0]) as server:
        return grader_at(server, **options).grade(Sample(sample), {"answer": 42}), server.received


def test_an_endpoint_is_sent_sample_item_and_trace_and_gives_the_score() -> None:
    grade, (received,) = graded(answered({"score": 0.25, "reason": "close"}), sample='{"a": 1}')
    assert (grade.value, grade.reason) == (0.25, "close")
    assert received.headers["x-auth"] == SECRET
    assert received.headers["content-type"] == "application/json"
    body = asked(received)
    assert set(body) == {"sample", "item", "trace_id"}
    assert body["item"] == {"answer": 42}
    assert len(body["trace_id"]) == 32
    sample = body["sample"]
    assert (sample["output_text"], sample["output_json"], sample["output_tools"]) == (
        '{"a": 1}',
        {"a": 1},
        [],
    )
    assert sample["choices"][0]["message"]["content"] == '{"a": 1}'


def test_tries_of_one_grade_carry_the_same_trace() -> None:
    grade, received = graded(answered({}, 503, retry_after="0"), answered({"score": 1}))
    assert grade.value == 1.0
    assert len({asked(each)["trace_id"] for each in received}) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(answered({"score": "1"}), "must answer", id="text"),
        pytest.param(answered({"score": True}), "must answer", id="boolean"),
        pytest.param(answered({"reward": 1}), "must answer", id="no-score"),
        pytest.param(answered([1]), "must answer", id="array"),
        pytest.param((200, {}, b'{"score": NaN}'), "NaN", id="nan"),
        pytest.param((200, {}, b"<html>"), "did not answer with JSON", id="html"),
        pytest.param((200, {}, b"[" + b"0," * MAX_BYTES), "larger", id="huge"),
        pytest.param(
            (200, {"content-encoding": "gzip"}, gzip.compress(b'{"score": 1}')), "JSON", id="compressed"
        ),
        pytest.param((302, {"location": "http://169.254.169.254/"}, b""), "answered 302", id="redirect"),
        pytest.param((404, {}, b"no such grader"), "answered 404: 'no such grader'", id="404"),
        pytest.param((401, {}, f"you sent {SECRET}".encode()), "you sent ***", id="401-echo"),
    ],
)
def test_an_answer_that_is_no_score_fails_at_once_by_name(answer: Answered, words: str) -> None:
    grade, received = graded(answer)
    assert grade.failure is not None
    assert grade.failure.kind is FailureKind.ENDPOINT_SERVER
    assert words in grade.failure.message
    assert SECRET not in grade.failure.message
    assert len(received) == 1


def test_a_server_that_stays_down_is_given_up_after_three_retries() -> None:
    grade, received = graded(answered({"detail": "down"}, 500, retry_after="0"))
    assert grade.failure is not None
    assert grade.failure.kind is FailureKind.ENDPOINT_SERVER
    assert "answered 500" in grade.failure.message
    assert len(received) == 4


def test_a_cut_connection_is_tried_again() -> None:
    grade, received = graded(None, answered({"score": 1}))
    assert (grade.value, len(received)) == (1.0, 2)


def test_a_server_that_is_too_slow_has_failed() -> None:
    release = threading.Event()

    def answering(_: Received) -> Answered:
        release.wait(30)
        return answered({"score": 1})

    with receiver(answering) as server:
        grade = grader_at(server, seconds=0.3).grade(Sample(""), {})
        release.set()
    assert grade.failure is not None
    assert grade.failure.kind is FailureKind.ENDPOINT_SERVER
    assert "did not answer within" in grade.failure.message


def test_too_large_a_payload_is_not_sent() -> None:
    grade, received = graded(answered({"score": 1}), sample="x" * MAX_BYTES)
    assert grade.failure is not None
    assert grade.failure.kind is FailureKind.ENDPOINT_INTERNAL
    assert not received


def test_an_answer_with_half_a_character_is_sent_all_the_same() -> None:
    grade, received = graded(answered({"score": 1}), sample="\ud83d {{item.answer}}")
    assert grade.value == 1.0
    assert asked(received[0])["sample"]["output_text"] == "\ud83d {{item.answer}}"


def test_a_url_inside_the_network_is_never_called() -> None:
    with receiver(lambda _: answered({"score": 1})) as server:
        closed = rules_of(settings_with(outbound_allow_http=True))
        by_name = server.url.replace("127.0.0.1", "localhost")
        grade = grader_at(server, closed, url=by_name).grade(Sample(""), {})
        assert not server.received
    assert grade.failure is not None
    assert grade.failure.kind is FailureKind.ENDPOINT_INTERNAL


@pytest.mark.parametrize(
    "url",
    ["http://grader.example/", "ftp://x", "https://u:p@grader.example/", "https://10.0.0.1/", "nonsense"],
)
def test_a_url_that_can_never_be_called_is_refused_when_the_grader_is_built(url: str) -> None:
    spec = parse_grader({"type": "endpoint", "name": "own", "url": url})
    services = Services(endpoint=Endpoints(rules_of(settings_with()), 8))
    with pytest.raises(GraderInvalid) as caught:
        build_grader(spec, services)
    assert caught.value.param == "url"


def test_calls_keep_to_their_rate() -> None:
    started = []

    def answering(_: Received) -> Answered:
        started.append(time.monotonic())
        return answered({"score": 1})

    with receiver(answering) as server, ThreadPoolExecutor(6) as threads:
        grader = grader_at(server, rate_limit=50)
        list(threads.map(lambda i: grader.grade(Sample(str(i)), {}), range(6)))
    assert len(started) == 6
    assert max(started) - min(started) > 5 / 50 * 0.8, "six calls at 50 a second take a tenth of a second"


VECTORS = {
    "cat": [1.0, 0.0, 0.0],
    "kitten": [0.8, 0.6, 0.0],
    "no cat": [-1.0, 0.0, 0.0],
    "zero": [0.0, 0.0, 0.0],
}


def embedding(received: Received) -> Answered:
    call = asked(received)
    data = [{"object": "embedding", "index": 0, "embedding": VECTORS[call["input"]]}]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return answered({"object": "list", "model": call["model"], "data": data, "usage": usage})


COSINE = {
    "type": "text_similarity",
    "name": "near",
    "evaluation_metric": "cosine",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
}


@pytest.mark.usefixtures("settings")
def test_cosine_of_embeddings_with_what_was_known_at_no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver(embedding) as server:
        entry = {"base_url": f"http://127.0.0.1:{server.port}/v1", "model": "embed"}
        monkeypatch.setenv("CHERRY_EMBEDDINGS", json.dumps(entry))
        get_settings.cache_clear()
        forget_services()
        grader = build_grader(parse_grader(COSINE), grader_services("proj_a"))
        texts = ("kitten", "cat", "no cat", "zero", "", " ")
        grades = [grader.grade(Sample(text), {"reference": "cat"}) for text in texts]
        assert [asked(each)["input"] for each in server.received] == ["kitten", "cat", "no cat", "zero"]
    assert [grade.value for grade in grades] == pytest.approx([0.8, 1.0, 0.0, 0.0, 0.0, 0.0])
    assert grades[0].usage == {"embed": TokenUsage(6, 0, calls=2)}
    assert grades[1].usage == {"embed": TokenUsage(known=2)}


@pytest.mark.usefixtures("settings")
def test_cosine_is_refused_without_an_embedding_model() -> None:
    forget_services()
    with pytest.raises(GraderInvalid, match="CHERRY_EMBEDDINGS") as caught:
        build_grader(parse_grader(COSINE), grader_services())
    assert (caught.value.code, caught.value.param) == ("unsupported_grader", "evaluation_metric")


def test_a_job_keeps_headers_sealed_and_shows_them_masked(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    training = make_file(db, tenant.project_id)
    db.commit()
    grader = {
        "type": "endpoint",
        "name": "own",
        "url": "https://grader.example/",
        "headers": {"X-Auth": SECRET},
    }
    body = {
        "model": "cherry-nano",
        "training_file": training.id,
        "method": {"type": "reinforcement", "reinforcement": {"grader": grader}},
    }
    created = http.post("/v1/fine_tuning/jobs", json=body)
    assert created.status_code == 200, created.text
    shown = http.get(f"/v1/fine_tuning/jobs/{created.json()['id']}")
    for answer in (created, shown):
        echoed = answer.json()["method"]["reinforcement"]["grader"]
        assert echoed == {**grader, "headers": {"X-Auth": "********"}}
    kept = db.scalars(select(Job.method)).one()
    assert SECRET not in json.dumps(kept)
    assert opened(kept["reinforcement"]["grader"], tenant.project_id, get_settings()) == grader
    with pytest.raises(GraderInvalid):
        opened(kept["reinforcement"]["grader"], "proj_of_somebody_else", get_settings())


@pytest.mark.parametrize(
    ("grader", "code", "param"),
    [
        ({"type": "endpoint", "url": "http://10.0.0.1/"}, "invalid_value", "url"),
        (
            {"type": "score_model", "model": "nope", "input": [{"role": "user", "content": "x"}]},
            "unsupported_grader",
            "model",
        ),
        (COSINE, "unsupported_grader", "evaluation_metric"),
    ],
    ids=["address", "judge", "cosine"],
)
def test_a_job_that_nobody_here_could_grade_is_refused_at_once(
    http: httpx.Client, db: Session, tenant: Tenant, grader: dict[str, Any], code: str, param: str
) -> None:
    training = make_file(db, tenant.project_id)
    db.commit()
    method = {"type": "reinforcement", "reinforcement": {"grader": grader}}
    body = {"model": "cherry-nano", "training_file": training.id, "method": method}
    error = http.post("/v1/fine_tuning/jobs", json=body)
    assert error.status_code == 400
    assert error.json()["error"]["code"] == code
    assert error.json()["error"]["param"] == f"method.reinforcement.grader.{param}"
