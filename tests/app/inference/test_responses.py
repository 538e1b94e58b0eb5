"""Responses: their events, what is kept of them, conversations that go on, and work in the background."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.erasures import service as erasures
from app.responses import service as responses
from app.responses.models import StoredResponse
from tests.app.answers import error_of
from tests.app.inference.model_server import ModelServer
from tests.app.inference.refusals import check_refused
from tests.app.inference.test_chat import events
from tests.factories import Tenant, make_stored_response, make_tenant

PATH = "/v1/responses"
ASKED: dict[str, Any] = {"model": "cherry-nano", "input": "hello"}
TEXT_EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    *["response.output_text.delta"] * 4,
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


def until(http: httpx.Client, response_id: str, status: str) -> dict[str, Any]:
    """The response once it has a status."""
    for _ in range(100):
        told: dict[str, Any] = http.get(f"{PATH}/{response_id}").raise_for_status().json()
        if told["status"] == status:
            return told
        time.sleep(0.1)
    pytest.fail(f"it is {told['status']} and never {status}")


def test_a_response_and_its_next_turn(client: openai.OpenAI, models: ModelServer) -> None:
    first = client.responses.create(
        model="cherry-nano",
        input="hello",
        instructions="Be brief.",
        max_output_tokens=20,
        temperature=0.5,
        metadata={"a": "1"},
        text={"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}},
        include=["message.output_text.logprobs"],
        reasoning={"effort": None},
        tools=[],
    )
    assert first.output_text == "Once upon a time"
    assert (first.status, first.metadata, first.temperature) == ("completed", {"a": "1"}, 0.5)
    assert (first.usage.input_tokens, first.usage.total_tokens) == (7, 11)  # type: ignore[union-attr]
    assert models.asked[0] == {
        "model": "cherry-nano",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}],
        "max_completion_tokens": 20,
        "temperature": 0.5,
        "logprobs": True,
        "top_logprobs": 0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": {"type": "object"}},
        },
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    call: Any = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    result: Any = {"type": "function_call_output", "call_id": "c", "output": "5"}
    second = client.responses.create(
        model="cherry-nano",
        input=[call, result, {"role": "user", "content": [{"type": "input_text", "text": "and?"}]}],
        previous_response_id=first.id,
    )
    function = {"name": "f", "arguments": "{}"}
    assert models.asked[1]["messages"] == [
        {"role": "user", "content": "hello"},
        {
            "role": "assistant",
            "content": "Once upon a time",
            "tool_calls": [{"id": "c", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "5"},
        {"role": "user", "content": "and?"},
    ]
    kept = client.responses.retrieve(second.id)
    assert (kept.output, kept.previous_response_id, kept.usage) == (second.output, first.id, second.usage)
    items = list(client.responses.input_items.list(second.id, order="asc", limit=2))
    assert [item.type for item in items] == [
        "message",
        "message",
        "function_call",
        "function_call_output",
        "message",
    ]
    backwards = list(client.responses.input_items.list(second.id))
    assert [item.id for item in backwards] == [item.id for item in reversed(items)]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError) as gone:
        client.responses.create(model="cherry-nano", input="x", previous_response_id=second.id)
    assert (gone.value.code, gone.value.param) == ("previous_response_not_found", "previous_response_id")
    assert len(list(client.responses.input_items.list(second.id))) == 3
    assert client.responses.input_tokens.count(model="cherry-nano", input="x").input_tokens > 0


def test_a_stream_is_the_published_sequence_and_can_be_seen_again(
    http: httpx.Client, models: ModelServer
) -> None:
    told = events(http, {**ASKED, "include": ["message.output_text.logprobs"]}, PATH)
    assert [event["type"] for event in told] == TEXT_EVENTS
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert "usage" not in told[0]["response"]
    assert (told[0]["response"]["status"], told[0]["response"]["output"]) == ("in_progress", [])
    deltas = [event["delta"] for event in told if event["type"] == "response.output_text.delta"]
    assert deltas == list(models.words)
    assert told[4]["logprobs"] == [{"token": "Once", "logprob": -0.5, "top_logprobs": []}]
    last = told[-1]["response"]
    assert last["usage"]["output_tokens"] == 4
    assert http.get(f"{PATH}/{last['id']}").json() == last
    again = http.get(f"{PATH}/{last['id']}?stream=true&starting_after=3").text
    assert [line.split(": ")[1] for line in again.splitlines() if line.startswith("event: ")] == [
        "response.output_text.delta",
        *TEXT_EVENTS[-4:],
    ]


def test_the_clients_stream(client: openai.OpenAI, models: ModelServer) -> None:
    if not isinstance(client, openai.OpenAI):
        pytest.skip("what the wrapper of tests does not pass on")
    with client.responses.stream(model="cherry-nano", input="hello") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == "".join(models.words)


def test_a_fault_after_the_start_is_told_and_kept(http: httpx.Client, models: ModelServer) -> None:
    models.fails_after = 1
    told = events(http, ASKED, PATH)
    assert [event["type"] for event in told[-2:]] == ["error", "response.failed"]
    assert told[-2]["code"] == "server_error"
    kept = http.get(f"{PATH}/{told[0]['response']['id']}").json()
    assert (kept["status"], kept["error"]["code"], kept["output"]) == ("failed", "server_error", [])
    models.fails_after, models.breaks_after = None, 1
    broke = http.post(PATH, json=ASKED)
    assert (broke.status_code, error_of(broke)["code"]) == (503, "sampler_unavailable")
    assert broke.headers["retry-after"] == "2"


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no model": ({"model": None}, "model", "invalid_type"),
    "no input": ({"input": None}, "input", "missing_required_parameter"),
    "an item": ({"input": [{"type": "computer_call"}]}, "input[0].type", "invalid_value"),
    "a role": ({"input": [{"role": "x", "content": "a"}]}, "input[0].role", "invalid_value"),
    "an image": (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        "input[0].content[0]",
        "invalid_value",
    ),
    "thoughts alone": ({"input": [{"type": "reasoning", "summary": []}]}, "input", "invalid_value"),
    "tokens": ({"max_output_tokens": 15}, "max_output_tokens", "integer_below_min_value"),
    "include": ({"include": ["x"]}, "include[0]", "invalid_value"),
    "effort": ({"reasoning": {"effort": "hard"}}, "reasoning.effort", "invalid_value"),
    "summary": ({"reasoning": {"summary": "short"}}, "reasoning.summary", "invalid_value"),
    "conversation": ({"conversation": "c"}, "conversation", "unsupported_parameter"),
    "format": ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
    "schema": (
        {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "x"}}}},
        "text.format.schema",
        "invalid_json_schema",
    ),
    "before": ({"previous_response_id": "resp_x"}, "previous_response_id", "previous_response_not_found"),
    "background": ({"background": True, "store": False}, "store", "invalid_value"),
    "unknown": ({"messages": []}, "messages", "unknown_parameter"),
}


def test_what_cannot_be_had_is_refused_by_name(
    http: httpx.Client, models: ModelServer, subtests: pytest.Subtests
) -> None:
    check_refused(http, PATH, ASKED, REFUSED, subtests)
    missing = error_of(http.post(PATH, json={"input": "a", "tools": [{}]}))
    assert {one["param"] for one in missing["errors"]} == {"model", "tools[0].type"}
    unknown = http.post(f"{PATH}/input_tokens", json={**ASKED, "model": "nobody"})
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "model_not_found")
    assert models.asked == []


def test_what_the_server_refuses_is_told_in_this_endpoints_words(
    http: httpx.Client, models: ModelServer
) -> None:
    long = {"message": "the messages have 9", "param": "messages", "code": "context_length_exceeded"}
    models.refusal = 400, long, {}
    told = error_of(http.post(PATH, json=ASKED))
    assert (told["param"], told["code"]) == ("input", "context_length_exceeded")
    assert told["message"] == "the input has 9"
    models.refusal = 400, {"message": "bad", "param": "response_format.json_schema.schema", "code": "x"}, {}
    assert error_of(http.post(PATH, json=ASKED))["param"] == "text.format.schema"


def test_another_projects_response_is_none(
    http: httpx.Client, db: Session, models: ModelServer
) -> None:  # fmt: skip
    theirs = make_stored_response(db, make_tenant(db, "other").project_id)
    db.commit()
    goes_on = [http.post(PATH, json={**ASKED, "previous_response_id": name}) for name in (theirs.id, "none")]
    assert goes_on[0].text.replace(theirs.id, "none") == goes_on[1].text


def test_what_is_not_stored_leaves_nothing(http: httpx.Client, db: Session, models: ModelServer) -> None:
    events(http, {**ASKED, "store": False}, PATH)
    made = http.post(PATH, json={**ASKED, "store": False}).json()
    assert (made["status"], made["store"]) == ("completed", False)
    assert len(models.asked) == 2
    assert db.scalar(select(func.count()).select_from(StoredResponse)) == 0
    assert http.get(f"{PATH}/{made['id']}").status_code == 404


def test_a_client_that_leaves_ends_the_request_and_nothing_is_kept(
    http: httpx.Client, db: Session, models: ModelServer
) -> None:
    models.is_endless = True
    with http.stream("POST", PATH, json={**ASKED, "stream": True}) as response:
        next(response.iter_bytes())
    assert models.left.wait(10)
    assert db.scalar(select(func.count()).select_from(StoredResponse)) == 0


def test_a_response_in_the_background(http: httpx.Client, models: ModelServer) -> None:
    begun = http.post(PATH, json={**ASKED, "background": True}).json()
    assert (begun["status"], begun["output"]) == ("queued", [])
    over = until(http, begun["id"], "completed")
    assert over["output"][0]["content"][0]["text"] == "Once upon a time"
    assert http.post(f"{PATH}/{begun['id']}/cancel").json() == over  # it was over
    told = events(http, {**ASKED, "background": True}, PATH)
    assert [event["type"] for event in told] == TEXT_EVENTS
    models.fails_after = 0
    failing = http.post(PATH, json={**ASKED, "background": True}).json()
    assert until(http, failing["id"], "failed")["error"]["code"] == "server_error"


def test_a_response_in_the_background_outlives_its_stream_and_is_cancelled(
    http: httpx.Client, models: ModelServer
) -> None:
    models.is_endless = True
    with http.stream("POST", PATH, json={**ASKED, "background": True, "stream": True}) as response:
        lines = response.iter_lines()
        assert next(lines) == "event: response.created"
        response_id = json.loads(next(lines).removeprefix("data: "))["response"]["id"]
    until(http, response_id, "in_progress")
    assert not models.left.is_set()
    assert http.post(f"{PATH}/{response_id}/cancel").json()["status"] == "cancelled"
    assert models.left.wait(10)
    assert http.get(f"{PATH}/{response_id}").json()["status"] == "cancelled"


def test_one_that_was_waited_for_cannot_be_cancelled(http: httpx.Client, models: ModelServer) -> None:
    made = http.post(PATH, json=ASKED).json()
    assert http.post(f"{PATH}/{made['id']}/cancel").status_code == 400


def test_what_no_process_works_on_has_failed_and_what_has_expired_is_swept(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    silent, old, new = (make_stored_response(db, tenant.project_id) for _ in range(3))
    over = func.now() - timedelta(seconds=1)
    is_silent = {"status": "in_progress", "lease_expires_at": over}
    db.execute(update(StoredResponse).where(StoredResponse.id == silent.id).values(**is_silent))
    db.execute(update(StoredResponse).where(StoredResponse.id == old.id).values(expires_at=over))
    db.commit()
    assert http.get(f"{PATH}/{old.id}").status_code == 404
    assert (responses.fail_silent(db, 10), erasures.remove_expired(db, "responses", 10)) == (1, 1)
    db.commit()
    assert http.get(f"{PATH}/{silent.id}").json()["error"]["code"] == "server_error"
    assert set(db.scalars(select(StoredResponse.id))) == {silent.id, new.id}
