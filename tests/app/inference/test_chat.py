"""Chat completions: what is asked of a model's server, and what clients are told of its reply."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from app.chat.models import StoredChat
from app.erasures import service as erasures
from app.models import service as model_service
from app.responses.models import StoredResponse
from app.tenants.models import Project
from methods import response_format
from tests.app.answers import error_of
from tests.app.inference.model_server import ModelServer
from tests.app.inference.refusals import check_refused
from tests.factories import Tenant, make_stored_chat

PATH = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello"}]
ASKED: dict[str, Any] = {"model": "cherry-nano", "messages": HELLO}


def events(http: httpx.Client, body: dict[str, Any], path: str = PATH) -> list[Any]:
    """The data of each event of a stream."""
    with http.stream("POST", path, json={**body, "stream": True}) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_a_whole_completion(client: openai.OpenAI, models: ModelServer, tenant: Tenant) -> None:
    made = client.chat.completions.create(
        model="cherry-nano",
        messages=[{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        n=2,
        logprobs=True,
        top_logprobs=0,
        stop="x",
        seed=3,
        max_tokens=9,
        user="somebody",
        tools=[],
        tool_choice="none",
        response_format={"type": "text"},
        extra_headers={"x-request-id": "theirs"},
    )
    assert [choice.message.content for choice in made.choices] == ["Once upon a time"] * 2
    assert [choice.finish_reason for choice in made.choices] == ["stop", "stop"]
    content = made.choices[1].logprobs.content  # type: ignore[union-attr]
    assert "".join(token.token for token in content or ()) == "Once upon a time"
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (7, 4)  # type: ignore[union-attr]
    assert (made.id[:9], made.model, made.metadata) == ("chatcmpl-", "cherry-nano", None)
    (asked,) = models.asked
    assert asked == {
        "model": "cherry-nano",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        "max_completion_tokens": 9,
        "n": 2,
        "stop": ["x"],
        "seed": 3,
        "logprobs": True,
        "top_logprobs": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    (headers,) = models.headers
    assert headers["x-cherry-key"] == tenant.key_id
    assert headers["authorization"] == "Bearer between-ourselves"
    assert headers["x-request-id"] == made._request_id


def test_a_stream_is_the_published_sequence(http: httpx.Client, models: ModelServer) -> None:
    models.words = ("Hi", " é")
    *chunks, last = events(
        http, {**ASKED, "n": 2, "logprobs": True, "stream_options": {"include_usage": True}}
    )
    assert last == "[DONE]"
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    *said, usage = chunks
    assert all(chunk["usage"] is None for chunk in said)
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 11)
    for index in range(2):
        deltas = [
            (choice["delta"], choice["finish_reason"], choice["logprobs"] is not None)
            for chunk in said
            for choice in chunk["choices"]
            if choice["index"] == index
        ]
        assert deltas == [
            ({"role": "assistant", "content": "", "refusal": None}, None, False),
            ({"content": "Hi"}, None, True),
            ({"content": " é"}, None, True),
            ({}, "stop", False),
        ]
    without = events(http, ASKED)
    assert all("usage" not in chunk for chunk in without[:-1])


def test_the_clients_accumulating_stream(client: openai.OpenAI, models: ModelServer) -> None:
    if not isinstance(client, openai.OpenAI):
        pytest.skip("what the wrapper of tests does not pass on")
    with client.chat.completions.stream(**ASKED) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert kinds.count("content.delta") == 1 + len(models.words)  # the opening's is empty
    assert final.choices[0].message.content == "Once upon a time"


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no messages": ({"messages": []}, "messages", "invalid_value"),
    "a role": ({"messages": [{"role": "x", "content": "a"}]}, "messages[0].role", "invalid_value"),
    "no content": ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content[0]",
        "invalid_value",
    ),
    "n": ({"n": 129}, "n", "integer_above_max_value"),
    "n as text": ({"n": "1"}, "n", "invalid_type"),
    "temperature": ({"temperature": 2.1}, "temperature", "decimal_above_max_value"),
    "top_p": ({"top_p": -0.1}, "top_p", "decimal_below_min_value"),
    "stops": ({"stop": list("abcde")}, "stop", "array_above_max_length"),
    "an empty stop": ({"stop": [""]}, "stop[0]", "string_below_min_length"),
    "tokens": ({"max_completion_tokens": 0}, "max_completion_tokens", "integer_below_min_value"),
    "top_logprobs": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
    "top_logprobs alone": ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
    "a penalty": ({"presence_penalty": 3}, "presence_penalty", "decimal_above_max_value"),
    "a bias": ({"logit_bias": {"5": 101}}, "logit_bias.5", "decimal_above_max_value"),
    "seed": ({"seed": 0.5}, "seed", "invalid_type"),
    "a pair": ({"metadata": {"a": "x" * 513}}, "metadata.a", "string_above_max_length"),
    "an identifier": ({"safety_identifier": "x" * 65}, "safety_identifier", "string_above_max_length"),
    "functions": ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
    "effort": ({"reasoning_effort": "hard"}, "reasoning_effort", "invalid_value"),
    "a budget": ({"max_thinking_tokens": -1}, "max_thinking_tokens", "integer_below_min_value"),
    "audio": ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
    "format": ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
    "schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "x"}}}},
        "response_format.json_schema.schema",
        "invalid_json_schema",
    ),
    "unknown": ({"top_k": 5}, "top_k", "unknown_parameter"),
}


def test_what_cannot_be_had_is_refused_by_name(
    http: httpx.Client, models: ModelServer, subtests: pytest.Subtests
) -> None:
    check_refused(http, PATH, ASKED, REFUSED, subtests)
    assert models.asked == []
    harmless = {"tools": None, "functions": [], "reasoning_effort": None, "tool_choice": "auto"}
    assert http.post(PATH, json={**ASKED, **harmless, "modalities": ["text"]}).status_code == 200


def test_all_refusals_come_together(http: httpx.Client, models: ModelServer) -> None:
    body = {**ASKED, "model": "nobody", "n": 0, "tools": [{}], "response_format": {"type": "xml"}}
    told = error_of(http.post(PATH, json=body))
    params = {"n", "tools[0].type", "response_format.type", "model"}
    assert {one["param"] for one in told["errors"]} == params
    unknown = http.post(PATH, json={**ASKED, "model": "nobody"})
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "model_not_found")


def test_an_alias_is_answered_by_its_model(http: httpx.Client, db: Session, models: ModelServer) -> None:
    model_service.add_alias(db, "gpt-4o-mini", "cherry-nano")
    db.commit()
    made = http.post(PATH, json={**ASKED, "model": "gpt-4o-mini", "store": True}).json()
    assert made["model"] == models.asked[0]["model"] == "cherry-nano"
    for name, found in (("gpt-4o-mini", [made["id"]]), ("cherry-nano", [made["id"]]), ("nobody", [])):
        assert [one["id"] for one in http.get(PATH, params={"model": name}).json()["data"]] == found


def test_every_refusal_has_a_code(http: httpx.Client, models: ModelServer) -> None:
    def told(response: httpx.Response) -> tuple[int, str | None, str | None]:
        return response.status_code, error_of(response)["code"], error_of(response)["param"]

    assert told(http.get(f"{PATH}/none")) == (404, "chat_completion_not_found", "completion_id")
    assert told(http.get("/v1/responses/none")) == (404, "response_not_found", "response_id")
    assert told(http.get(f"{PATH}?order=asc&model=%00")) == (400, "invalid_value", "model")
    assert told(http.get(f"{PATH}?%C3=%A9")) == (400, "invalid_value", None)
    empty = http.post(PATH, content=b"", headers={"content-type": "application/json"})
    assert told(empty) == (400, "invalid_json", None)
    models.refusal = 400, {"message": "no", "param": "prompt", "code": 400}, {}
    assert told(http.post(PATH, json=ASKED)) == (400, "invalid_value", "prompt")


def test_logprobs_of_no_tokens_are_empty_where_they_were_asked_for(
    http: httpx.Client, models: ModelServer
) -> None:
    models.words = ()
    asked = {**ASKED, "logprobs": True, "store": True}
    choice = http.post(PATH, json=asked).json()["choices"][0]
    assert (choice["message"]["content"], choice["logprobs"]) == ("", {"content": [], "refusal": None})
    streamed = http.get(f"{PATH}/{events(http, asked)[0]['id']}").json()
    assert streamed["choices"][0]["logprobs"] == {"content": [], "refusal": None}
    assert http.post(PATH, json=ASKED).json()["choices"][0]["logprobs"] is None


def test_what_the_server_says_instead_of_a_reply(http: httpx.Client, models: ModelServer) -> None:
    def told(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> httpx.Response:
        models.refusal = status, body, headers or {}
        return http.post(PATH, json={**ASKED, "stream": status % 2 == 0})

    long = {"message": "too long", "param": "messages", "code": "context_length_exceeded"}
    refused = told(400, long)
    assert (refused.status_code, error_of(refused)["code"], error_of(refused)["param"]) == (
        400,
        "context_length_exceeded",
        "messages",
    )
    busy = told(429, {"message": "wait", "code": "rate_limit_exceeded"}, {"retry-after": "7"})
    assert (busy.status_code, busy.headers["retry-after"]) == (429, "7")
    full = told(503, {"message": "full"}, {"retry-after": "3"})
    assert (full.status_code, full.headers["retry-after"]) == (503, "3")
    token = told(401, {"message": "no"})
    assert token.status_code == 503
    assert "CHERRY_SAMPLER_TOKEN" in error_of(token)["message"]
    died = told(500, {"message": "/secret/path"})
    assert died.status_code == 500
    assert "secret" not in died.text


def test_no_server_says_what_to_do(
    http: httpx.Client, models: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.app.inference.conftest import point_at

    models.kind = "something else"
    other = http.post(PATH, json=ASKED)
    assert (other.status_code, "CHERRY_SAMPLER_URL" in other.text) == (503, True)
    models.kind = "sampler"
    assert http.post(PATH, json=ASKED).status_code == 200
    point_at(monkeypatch, "http://127.0.0.1:9")
    away = http.post(PATH, json=ASKED)
    assert (away.status_code, away.headers["retry-after"]) == (503, "2")
    point_at(monkeypatch, "")
    none = http.post(PATH, json=ASKED)
    assert (none.status_code, none.headers["x-should-retry"]) == (503, "false")
    assert "cherry sampler" in error_of(none)["message"]


@pytest.mark.parametrize("how", ["fails_after", "breaks_after"])
def test_a_fault_after_the_start_is_told(http: httpx.Client, models: ModelServer, how: str) -> None:
    setattr(models, how, 2)
    chunks = events(http, {**ASKED, "store": True})
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks[:-1]] == ["", "Once", " upon"]
    broke = how == "breaks_after"
    assert chunks[-1]["error"]["type"] == ("service_unavailable_error" if broke else "server_error")
    whole = http.post(PATH, json={**ASKED, "store": True})
    assert whole.status_code == (503 if broke else 500)
    if broke:
        assert (error_of(whole)["code"], whole.headers["retry-after"]) == ("sampler_unavailable", "2")
    assert http.get(PATH).json()["data"] == []


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_the_request(http: httpx.Client, models: ModelServer, stream: bool) -> None:
    models.is_endless = True
    if stream:
        with http.stream("POST", PATH, json={**ASKED, "stream": True}) as response:
            next(response.iter_bytes())
    else:
        with pytest.raises(httpx.ReadTimeout):
            http.post(PATH, json=ASKED, timeout=1)
    assert models.left.wait(10)


def test_a_key_repeats_a_whole_completion_and_lets_streams_pass(
    http: httpx.Client, models: ModelServer
) -> None:
    keyed = {"idempotency-key": "a"}
    first, second = (http.post(PATH, json=ASKED, headers=keyed) for _ in range(2))
    assert first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"
    assert len(models.asked) == 1
    for _ in range(2):
        with http.stream(
            "POST", PATH, json={**ASKED, "stream": True}, headers={"idempotency-key": "b"}
        ) as streamed:
            assert streamed.read().endswith(b"data: [DONE]\n\n")
    assert len(models.asked) == 3


def test_stored_completions(client: openai.OpenAI, models: ModelServer) -> None:
    stored = client.chat.completions
    messages: list[Any] = [
        {"role": "assistant", "content": "Yes?", "name": "a"},
        {"role": "assistant", "content": [{"type": "text", "text": "No"}, {"type": "text", "text": "."}]},
    ]
    made = stored.create(model="cherry-nano", messages=messages, store=True, metadata={"a": "1"})
    assert made.metadata == {"a": "1"}
    kept = stored.retrieve(made.id)
    assert (kept.id, kept.choices, kept.metadata) == (made.id, made.choices, {"a": "1"})
    assert [one.id for one in stored.list(metadata={"a": "1"}, model="cherry-nano")] == [made.id]
    assert [one.id for one in stored.list(metadata={"a": "2"})] == []
    told = list(stored.messages.list(made.id))
    assert [(one.id, one.content) for one in told] == [(f"{made.id}-0", "Yes?"), (f"{made.id}-1", "No.")]
    assert [part.text for part in told[1].content_parts or () if part.type == "text"] == ["No", "."]
    assert [one.id for one in stored.messages.list(made.id, order="desc", limit=1)] == [
        f"{made.id}-1",
        f"{made.id}-0",
    ]
    assert stored.update(made.id, metadata={"b": "2"}).metadata == {"b": "2"}
    assert stored.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        stored.retrieve(made.id)


def test_a_stream_is_stored_before_its_end(http: httpx.Client, models: ModelServer) -> None:
    models.words = ("a", "\x00b")
    chunks = events(http, {**ASKED, "store": True, "metadata": {"a": "1"}})
    kept = http.get(f"{PATH}/{chunks[0]['id']}").json()
    assert kept["choices"][0]["message"]["content"] == "ab"  # Postgres takes no NUL
    assert kept["usage"]["total_tokens"] == 11


def test_what_is_not_stored_leaves_nothing(http: httpx.Client, db: Session, models: ModelServer) -> None:
    events(http, ASKED)
    http.post(PATH, json={**ASKED, "store": False, "metadata": {"a": "1"}})
    assert len(models.asked) == 2
    assert db.scalar(select(func.count()).select_from(StoredChat)) == 0
    for table in ("chat_completions", "responses", "left_places", "idempotency_keys"):
        assert db.scalar(text(f"SELECT count(*) FROM {table}")) == 0


def test_it_is_kept_as_long_as_its_project_keeps_things(
    http: httpx.Client, db: Session, tenant: Tenant, models: ModelServer
) -> None:
    db.get_one(Project, tenant.project_id).completions_kept = timedelta(days=2)
    db.commit()
    http.post(PATH, json={**ASKED, "stream": False, "store": True}).raise_for_status()
    http.post("/v1/responses", json={"model": "cherry-nano", "input": "Hello"}).raise_for_status()
    for table in (StoredChat, StoredResponse):
        row = db.scalars(select(table)).one()
        assert row.expires_at - row.created_at == timedelta(days=2)


def test_what_has_expired_is_gone_and_swept(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    old, new = (make_stored_chat(db, tenant.project_id) for _ in range(2))
    db.execute(update(StoredChat).where(StoredChat.id == old.id).values(expires_at=func.now()))
    db.commit()
    assert [one["id"] for one in http.get(PATH).json()["data"]] == [new.id]
    assert http.get(f"{PATH}/{old.id}").status_code == 404
    assert erasures.remove_expired(db, "chat_completions", 10) == 1
    assert db.scalars(select(StoredChat.id)).all() == [new.id]


class Held:
    """Stands where schemas are compiled one at a time, and lets nobody on before it is told to."""

    def __init__(self) -> None:
        self.reached, self.free = threading.Event(), threading.Event()

    def __enter__(self) -> None:
        self.reached.set()
        assert self.free.wait(60)

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("path", [PATH, "/v1/responses"])
def test_nobody_else_waits_while_a_schema_is_compiled(
    http: httpx.Client, models: ModelServer, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    held, block = Held(), {"name": "answer", "schema": {"type": "object", "title": path}}
    monkeypatch.setattr(response_format, "_COMPILING", held)
    body: dict[str, Any] = {"model": "cherry-nano", "input": "hello", "store": False}
    body["text"] = {"format": {"type": "json_schema", **block}}
    if path == PATH:
        body = {**ASKED, "response_format": {"type": "json_schema", "json_schema": block}}
    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(http.post, path, json=body)
        try:
            assert held.reached.wait(60)
            assert threads.submit(http.post, PATH, json=ASKED).result(30).status_code == 200
        finally:
            held.free.set()
        assert slow.result(60).status_code == 200
