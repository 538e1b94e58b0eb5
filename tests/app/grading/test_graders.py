"""/v1/fine_tuning/alpha/graders: run and validate."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.errors import TooManyRequests
from app.grading.schemas import Errors, GraderRunOut
from app.grading.services import forget_services
from app.grading.turns import Turns
from app.sandbox import local_sandbox, sandbox_settings
from app.settings import Settings, get_settings
from graders import Failure, FailureKind, Grade, TokenUsage, parse_grader
from tests.app.grading.judge_servers import refused, said, scored
from tests.app.http import openai_schema
from tests.app.webhooks.receivers import Received, receiver
from tests.factories import GRADER, Tenant

SIMILAR = {
    "type": "text_similarity",
    "name": "alike",
    "evaluation_metric": "fuzzy_match",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
}
MULTI = {
    "type": "multi",
    "name": "both",
    "calculate_output": "0.25 * same + 0.75 * city",
    "graders": {
        "same": GRADER,
        "city": {**GRADER, "name": "city", "input": "{{sample.output_json.city}}"},
    },
}
FIELDS = {
    "type": "fields",
    "name": "profile",
    "input": "{{sample.output_json}}",
    "reference": "{{item.reference}}",
}
RUN = "/v1/fine_tuning/alpha/graders/run"
VALIDATE = "/v1/fine_tuning/alpha/graders/validate"
REQUIRED_ERRORS = {
    "formula_parse_error",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
    "invalid_variable_error",
    "other_error",
    "python_grader_server_error",
    "python_grader_server_error_type",
    "python_grader_runtime_error",
    "python_grader_runtime_error_details",
    "model_grader_server_error",
    "model_grader_server_error_details",
    "model_grader_refusal_error",
    "model_grader_parse_error",
}


def run(http: httpx.Client, grader: Any, sample: str, item: Any = None, **more: Any) -> dict[str, Any]:
    body = {"grader": grader, "model_sample": sample, **({} if item is None else {"item": item}), **more}
    response = http.post(RUN, json=body)
    assert response.status_code == 200, response.text
    openai_schema.check(response.json(), "RunGraderResponse")
    return dict(response.json())


def flags(result: dict[str, Any]) -> set[str]:
    return {name for name, value in result["metadata"]["errors"].items() if value is True}


def test_an_answer_that_does_not_parse_shows_0_and_its_flag_under_a_penalty_too(http: httpx.Client) -> None:
    wrong = {**GRADER, "input": "{{sample.output_json.city}}", "operation": "ne"}
    penalty = {"type": "multi", "name": "p", "calculate_output": "0 - wrong", "graders": {"wrong": wrong}}
    result = run(http, penalty, "no json", {"answer": "x"})
    assert result["reward"] == 0
    assert flags(result) == {"sample_parse_error"}


@pytest.mark.parametrize("grader", [GRADER, SIMILAR], ids=lambda grader: grader["type"])
def test_the_official_client_runs_and_validates(client: openai.OpenAI, grader: dict[str, Any]) -> None:
    graders = client.fine_tuning.alpha.graders
    assert graders.validate(grader=grader).grader.model_dump() == grader  # type: ignore[arg-type, union-attr]
    reply = graders.run(grader=grader, model_sample="Pisa", item={"answer": "Pisa"})  # type: ignore[arg-type]
    assert reply.reward == 1
    assert (reply.metadata.name, reply.metadata.type) == (grader["name"], grader["type"])
    assert reply.metadata.execution_time >= 0
    assert (reply.metadata.token_usage, reply.metadata.sampled_model_name) == (None, None)
    assert (reply.sub_rewards, reply.api_model_grader_token_usage_per_model) == ({}, {})
    assert not reply.metadata.errors.sample_parse_error


def test_the_client_runs_what_its_types_do_not_know(client: openai.OpenAI) -> None:
    graders: Any = client.fine_tuning.alpha.graders
    item = {"answer": "Pisa", "reference": {"city": "Pisa", "state": "Tuscany"}}
    reply = graders.run(grader=MULTI, model_sample='{"city": "Pisa"}', item=item)
    assert reply.reward == 0.75
    assert reply.sub_rewards == {"same": 0.0, "city": 1.0}
    reply = graders.run(grader=FIELDS, model_sample='{"city": "Pisa"}', item=item)
    assert reply.reward == 0.5
    assert reply.metadata.scores == {"city": 1.0, "state": 0.0}
    assert reply.sub_rewards == {}


def test_a_multi_of_one_bare_grader_is_given_back_as_it_came(client: openai.OpenAI) -> None:
    graders: Any = client.fine_tuning.alpha.graders
    bare = {"type": "multi", "name": "one", "calculate_output": "same", "graders": GRADER}
    assert graders.validate(grader=bare).grader.model_dump() == bare
    reply = graders.run(grader=bare, model_sample="a", item={"answer": "a"})
    assert (reply.reward, reply.sub_rewards) == (1.0, {"same": 1.0})


def test_validate_fills_in_a_name_that_stays_the_same(http: httpx.Client) -> None:
    nameless = {key: value for key, value in GRADER.items() if key != "name"}
    first, second = (http.post(VALIDATE, json={"grader": nameless}).json()["grader"] for _ in range(2))
    assert first == second
    assert first["name"].startswith("grader-")


@pytest.mark.parametrize(
    ("grader", "sample", "item", "flag"),
    [
        pytest.param(FIELDS, "no json", {"reference": {"a": 1}}, "sample_parse_error", id="not-json"),
        pytest.param(GRADER, "a", {}, "invalid_variable_error", id="no-such-key"),
        pytest.param(GRADER, "a", None, "invalid_variable_error", id="no-item"),
        pytest.param(
            {**MULTI, "calculate_output": "log(same + city)"},
            '{"city": "x"}',
            {"answer": "y"},
            "formula_parse_error",
            id="log-of-0",
        ),
        pytest.param(
            {**GRADER, "reference": "{{item.answer}}" * 200},
            "a",
            {"answer": "x" * 9000},
            "other_error",
            id="huge",
        ),
    ],
)
def test_a_failed_grading_is_200_with_its_flag(
    http: httpx.Client, grader: dict[str, Any], sample: str, item: dict[str, Any] | None, flag: str
) -> None:
    result = run(http, grader, sample, item)
    assert (result["reward"], flags(result)) == (0.0, {flag})
    assert result["metadata"]["errors"].keys() >= REQUIRED_ERRORS
    assert len(result["metadata"]["errors"][f"{flag}_details"]) > 10


def test_a_sub_grader_that_fails_is_flagged_and_counts_as_0(http: httpx.Client) -> None:
    result = run(http, MULTI, "a", {"answer": "a"})
    assert (result["reward"], flags(result)) == (0.25, {"sample_parse_error"})
    assert result["sub_rewards"] == {"same": 1.0, "city": 0.0}


def test_a_reference_answer_of_the_old_form_is_part_of_the_item(http: httpx.Client) -> None:
    grader = {**GRADER, "reference": "{{item.reference_answer.city}} {{item.more}}"}
    result = run(http, grader, "Pisa 1", {"more": 1}, reference_answer={"city": "Pisa"})
    assert (result["reward"], flags(result)) == (1.0, set())


@pytest.mark.parametrize("path", [RUN, VALIDATE])
@pytest.mark.parametrize(
    ("grader", "code", "param"),
    [
        pytest.param({"type": "string_check"}, "missing_required_parameter", "grader.input", id="missing"),
        pytest.param({**GRADER, "operation": "is"}, "invalid_value", "grader.operation", id="value"),
        pytest.param(
            {**GRADER, "input": "{sample.output_text}"}, "invalid_value", "grader.input", id="single-braces"
        ),
        pytest.param({**GRADER, "x": 1}, "unknown_parameter", "grader.x", id="unknown"),
        pytest.param(
            {**MULTI, "graders": {**MULTI["graders"], "same": {**GRADER, "input": 5}}},  # type: ignore[dict-item]
            "invalid_type",
            "grader.graders.same.input",
            id="within-a-multi",
        ),
        pytest.param(
            {**MULTI, "calculate_output": "same +"}, "invalid_value", "grader.calculate_output", id="formula"
        ),
        pytest.param({"type": "magic"}, "invalid_value", "grader.type", id="kind"),
        pytest.param({}, "missing_required_parameter", "grader.type", id="empty"),
        pytest.param("same", "invalid_type", "grader", id="no-object"),
    ],
)
def test_an_invalid_grader_is_400(http: httpx.Client, path: str, grader: Any, code: str, param: str) -> None:
    body = {"grader": grader, **({"model_sample": "a"} if path == RUN else {})}
    response = http.post(path, json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, code, param)
    assert param in error["message"] or "Supported values" in error["message"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model_sample": 5}, "model_sample"),
        ({"item": []}, "item"),
        ({"x": 1}, "x"),
        ({"item": None}, "item"),
    ],
)
def test_a_malformed_run_is_400(http: httpx.Client, change: dict[str, Any], param: str) -> None:
    response = http.post(RUN, json={"grader": GRADER, "model_sample": "a", **change})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_graders_need_a_key_and_only_post(http: httpx.Client, server_url: str) -> None:
    assert httpx.post(f"{server_url}{RUN}", json={}).status_code == 401
    assert http.get(RUN).status_code == 405


def test_text_in_an_answer_that_looks_like_a_template_stays_text(http: httpx.Client) -> None:
    assert run(http, GRADER, "{{item.answer}}", {"answer": "a"})["reward"] == 0


def test_every_failure_has_a_flag_and_a_sentence() -> None:
    for kind in FailureKind:
        errors = Errors.of(Grade(None, Failure(kind, "what happened"))).model_dump()
        assert errors[kind.value] is True
        assert "what happened" in errors.values()
        assert sum(value is True for value in errors.values()) == 1


def test_tokens_are_told_for_each_model_and_in_all() -> None:
    grade = Grade(0.5, usage={"big": TokenUsage(100, 20, 60), "small": TokenUsage(10, 2)})
    told = GraderRunOut.of(parse_grader(GRADER), grade).model_dump()
    assert told["metadata"]["token_usage"] == 132
    assert told["metadata"]["sampled_model_name"] is None
    assert told["model_grader_token_usage_per_model"]["big"] == {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "cached_tokens": 60,
    }
    one = GraderRunOut.of(parse_grader(GRADER), Grade(0.5, usage={"big": TokenUsage(1, 1)}))
    assert one.metadata.sampled_model_name == "big"


@pytest.fixture
def local_endpoints(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoint graders may call this machine."""
    monkeypatch.setenv("CHERRY_OUTBOUND_ALLOW", "127.0.0.1")
    monkeypatch.setenv("CHERRY_OUTBOUND_ALLOW_HTTP", "true")
    get_settings.cache_clear()
    forget_services()


@pytest.mark.usefixtures("local_endpoints")
def test_no_transaction_is_open_while_a_grader_works(http: httpx.Client, db: Session) -> None:
    """The server of an endpoint grader looks at the database's own list of sessions."""
    idle = []

    def look(_: Received) -> tuple[int, dict[str, str], bytes]:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND "
        mine = "pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'"
        idle.append(db.execute(text(query + mine)).scalar_one())
        return 200, {}, b'{"score": 1}'

    with receiver(look) as server:
        assert run(http, {"type": "endpoint", "name": "looking", "url": server.url}, "a")["reward"] == 1
    assert idle == [0]


def test_work_of_one_key_is_bounded_and_other_keys_go_ahead() -> None:
    turns, gate = Turns(wait_seconds=0.05), threading.Event()

    async def scene() -> list[Any]:
        under_way = [
            asyncio.create_task(turns.run("a", lambda: gate.wait(30), seconds=30, per_key=2))
            for _ in range(2)
        ]
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequests) as refused:
            await turns.run("a", lambda: 1, seconds=30, per_key=2)
        assert refused.value.headers == {"retry-after": "2"}
        other = await turns.run("b", lambda: 2, seconds=30, per_key=2)
        gate.set()
        return [
            other,
            *await asyncio.gather(*under_way),
            await turns.run("a", lambda: 3, seconds=30, per_key=2),
        ]

    assert asyncio.run(scene()) == [2, True, True, 3]


def test_calls_wait_for_a_place_in_their_order_and_in_turn_over_the_keys() -> None:
    turns, gate = Turns(together=1), threading.Event()
    done: list[str] = []

    async def scene() -> None:
        first = asyncio.create_task(turns.run("a", lambda: gate.wait(30), seconds=30, per_key=4))
        await asyncio.sleep(0)
        calls = [
            asyncio.create_task(
                turns.run(name[0], lambda name=name: done.append(name), seconds=30, per_key=4)
            )
            for name in ("a1", "a2", "a3", "b1", "c1")
        ]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *calls)

    asyncio.run(scene())
    assert done == ["a1", "b1", "c1", "a2", "a3"]


def test_a_caller_who_leaves_the_queue_holds_no_place() -> None:
    turns, gate = Turns(), threading.Event()

    async def scene() -> list[bool | int]:
        first = asyncio.create_task(turns.run("a", lambda: gate.wait(30), seconds=30, per_key=1))
        await asyncio.sleep(0)
        impatient = asyncio.create_task(turns.run("a", lambda: 1, seconds=30, per_key=1))
        patient = asyncio.create_task(turns.run("a", lambda: 2, seconds=30, per_key=1))
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(first, patient)

    assert asyncio.run(scene()) == [True, 2]


def test_eight_callers_with_the_official_client_at_its_defaults_all_get_their_grades(
    server_url: str, tenant: Tenant
) -> None:
    grader = {"type": "string_check", "name": "x", "operation": "eq", "input": "{{sample.output_text}}"}

    def calls(count: int) -> list[float]:
        with openai.OpenAI(base_url=f"{server_url}/v1", api_key=tenant.key) as client:
            graders = client.fine_tuning.alpha.graders
            found = [
                graders.run(grader=grader | {"reference": "a"}, model_sample="a", extra_body={"item": {}})  # type: ignore[arg-type]
                for _ in range(count)
            ]
        return [one.reward for one in found]

    with ThreadPoolExecutor(8) as pool:
        rewards = [reward for some in pool.map(calls, [25] * 8) for reward in some]
    assert rewards == [1.0] * 200


def test_work_that_outlives_its_limit_still_counts() -> None:
    turns, gate = Turns(wait_seconds=0.05), threading.Event()

    async def scene() -> None:
        with pytest.raises(TimeoutError):
            await turns.run("a", lambda: gate.wait(30), seconds=0.01, per_key=1)
        with pytest.raises(TooManyRequests):
            await turns.run("a", lambda: 1, seconds=30, per_key=1)
        gate.set()
        while True:
            try:
                assert await turns.run("a", lambda: 1, seconds=30, per_key=1) == 1
            except TooManyRequests:
                time.sleep(0.001)
            else:
                return

    asyncio.run(scene())


@pytest.mark.usefixtures("local_endpoints")
def test_a_grading_that_takes_too_long_is_a_failed_one(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def hang(_: Received) -> None:
        gate.wait(60)

    monkeypatch.setenv("CHERRY_GRADER_RUN_LIMIT", "PT0.05S")
    get_settings.cache_clear()
    with receiver(hang) as server:
        result = run(http, {"type": "endpoint", "name": "stuck", "url": server.url}, "a")
        gate.set()
    assert (result["reward"], flags(result)) == (0.0, {"other_error"})
    assert "took longer" in result["metadata"]["errors"]["other_error_details"]


def test_a_python_grader_runs_and_its_traceback_is_told(client: openai.OpenAI) -> None:
    if (reason := local_sandbox(sandbox_settings(get_settings())).why_not()) is not None:
        pytest.skip(f"no sandbox holds here: {reason}")
    source = "def grade(sample, item):\n    return 1 / sample['output_json']['n']\n"
    grader: Any = {"type": "python", "name": "inverse", "source": source}
    validated: Any = client.fine_tuning.alpha.graders.validate(grader=grader).grader
    assert (validated.type, validated.name, validated.source) == ("python", "inverse", source)
    assert (
        client.fine_tuning.alpha.graders.run(grader=grader, model_sample='{"n": 4}', item={}).reward == 0.25
    )
    errors = client.fine_tuning.alpha.graders.run(
        grader=grader, model_sample='{"n": 0}', item={}
    ).metadata.errors
    assert errors.python_grader_runtime_error
    assert not errors.python_grader_server_error
    assert "ZeroDivisionError" in (errors.python_grader_runtime_error_details or "")


def test_a_judge_is_asked_and_its_tokens_are_told(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    grader: Any = {
        "type": "score_model",
        "name": "judge",
        "model": "big",
        "range": [0, 10],
        "input": [{"role": "user", "content": "How good is {{sample.output_text}}?"}],
    }
    answers = iter([scored(7, cached=40), refused(401, "no such key")])
    with receiver(lambda _: next(answers)) as judge:
        judges = {"big": {"base_url": f"http://127.0.0.1:{judge.port}/v1", "retries": 0}}
        monkeypatch.setenv("CHERRY_JUDGES", json.dumps(judges))
        get_settings.cache_clear()
        forget_services()
        graders = client.fine_tuning.alpha.graders
        reply = graders.run(grader=grader, model_sample="a", item={})
        failed = graders.run(grader=grader, model_sample="b", item={})
    assert (reply.reward, reply.metadata.token_usage, reply.metadata.sampled_model_name) == (7.0, 110, "big")
    assert reply.api_model_grader_token_usage_per_model == {
        "big": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110, "cached_tokens": 40}
    }
    assert failed.reward == 0
    assert failed.metadata.errors.api_model_grader_server_error
    assert "no such key" in (failed.metadata.errors.api_model_grader_server_error_details or "")


def test_a_rubric_is_validated_and_run_as_other_graders_are(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    rubric = {
        "type": "rubric",
        "name": "care",
        "model": "big",
        "criteria": [{"criterion": "Is kind.", "points": 3}, {"criterion": "Is long.", "points": -1}],
    }
    care: Any = {"type": "multi", "name": "m", "graders": {"care": rubric}, "calculate_output": "10 * care"}
    verdicts = {"1": {"reason": "warm", "met": True}, "2": {"reason": "wordy", "met": True}}
    with receiver(lambda _: said(json.dumps(verdicts))) as judge:
        judges = {"big": {"base_url": f"http://127.0.0.1:{judge.port}/v1"}}
        monkeypatch.setenv("CHERRY_JUDGES", json.dumps(judges))
        get_settings.cache_clear()
        forget_services()
        assert http.post(VALIDATE, json={"grader": care}).json() == {"grader": care}
        result = run(http, care, "a", {})
        empty = {**care, "graders": {"care": {**rubric, "criteria": []}}}
        wrong = http.post(VALIDATE, json={"grader": empty})
    assert result["reward"] == pytest.approx(20 / 3)
    assert result["metadata"]["scores"] == pytest.approx(
        {
            "care": 2 / 3,
            "care.is-kind": 1,
            "care.is-long": 1,
            "care.wanted": 1,
            "care.unwanted": 1,
            "care.answered": 1,
        }
    )
    assert "[met, -1] Is long.: wordy" in result["reason"]
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "grader.graders.care.criteria")
