"""The whole way: the official client, the service, a real sampler and the built-in model."""

from __future__ import annotations

import json
from typing import Any

import httpx2 as httpx
import openai
import pytest
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app.models import service as model_service
from tests.app.inference.conftest import BUILT_IN
from tests.app.inference.test_chat import events
from tests.factories import (
    Tenant,
    make_checkpoint,
    make_job,
    make_permission,
    make_tenant,
    make_tuned_model,
    store_model,
)

pytestmark = pytest.mark.usefixtures("sampler")
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
ASKED: dict[str, Any] = {"model": "cherry-nano", "messages": HELLO, "max_completion_tokens": 12, "seed": 5}


class Choice(BaseModel):
    known: bool


def test_every_endpoint_answers_the_official_client(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(**ASKED, n=2, logprobs=True, top_logprobs=2)
    assert chat.usage.prompt_tokens > 0  # type: ignore[union-attr]
    for choice in chat.choices:
        tokens = choice.logprobs.content  # type: ignore[union-attr]
        joined = b"".join(bytes(token.bytes or ()) for token in tokens or ())
        assert joined.decode() == choice.message.content
        assert all(len(token.top_logprobs) == 2 for token in tokens or ())
    text = client.completions.create(model="cherry-nano", prompt="hello", max_tokens=5, echo=True, best_of=2)
    assert text.choices[0].text.startswith("hello")
    reply = client.responses.create(model="cherry-nano", input="hello", max_output_tokens=16)
    assert reply.output_text
    again = client.responses.create(
        model="cherry-nano", input="more", previous_response_id=reply.id, max_output_tokens=16
    )
    assert again.usage.input_tokens > reply.usage.input_tokens  # type: ignore[union-attr]
    counted = client.responses.input_tokens.count(model="cherry-nano", input="hello")
    assert counted.input_tokens == reply.usage.input_tokens  # type: ignore[union-attr]


def test_what_the_model_cannot_read_is_refused_with_a_code(http: httpx.Client) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    asked: list[tuple[str, dict[str, Any], str]] = [
        ("/v1/completions", {"prompt": [99_999_999]}, "prompt"),
        ("/v1/responses", {"input": [call]}, "input"),
    ]
    for path, body, param in asked:
        response = http.post(path, json={"model": "cherry-nano", **body})
        told = response.json()["error"]
        assert (response.status_code, told["param"], told["code"]) == (400, param, "invalid_value"), told


def test_a_stream_says_what_a_whole_completion_says(http: httpx.Client) -> None:
    asked = {**ASKED, "n": 2, "temperature": 0.9}
    whole = http.post("/v1/chat/completions", json=asked).json()
    texts = ["", ""]
    for chunk in events(http, asked)[:-1]:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == [choice["message"]["content"] for choice in whole["choices"]]
    assert len(set(texts)) == 2


def test_the_clients_parse_gets_its_type(client: openai.OpenAI) -> None:
    if not isinstance(client, openai.OpenAI):
        pytest.skip("the asynchronous client's is the same code")
    asked: Any = {**ASKED, "max_completion_tokens": 60, "temperature": 0}
    parsed = client.chat.completions.parse(**asked, response_format=Choice)
    assert isinstance(parsed.choices[0].message.parsed, Choice)
    reply = client.responses.parse(
        model="cherry-nano", input="hello", text_format=Choice, temperature=0, max_output_tokens=60
    )
    assert isinstance(reply.output_parsed, Choice)
    anything = client.chat.completions.create(**asked, response_format={"type": "json_object"}, stop="}")
    assert (anything.choices[0].message.content or "").startswith("{")


def test_tuned_models_checkpoints_aliases_and_shared_ones_are_served(
    http: httpx.Client, db: Session, server_url: str, tenant: Tenant
) -> None:
    job = make_job(db, tenant.project_id)
    model = make_tuned_model(db, job)
    kept = make_checkpoint(db, job, 1)
    for key in {str(model.storage_key), str(kept.storage_key)}:
        store_model(BUILT_IN, key)
    kept.manifest = {"files": {}}
    model_service.add_alias(db, "gpt-4o-mini", "cherry-nano")
    stranger, friend = make_tenant(db, "stranger"), make_tenant(db, "friend")
    make_permission(db, kept, friend.project_id)
    db.commit()
    listed = http.get("/v1/models").json()["data"]
    assert model.name in {one["id"] for one in listed}
    base = http.post("/v1/chat/completions", json=ASKED).json()["choices"]
    for name, told in {
        model.name: model.name,
        kept.model_name: kept.model_name,
        "gpt-4o-mini": "cherry-nano",
    }.items():
        answer = http.post("/v1/chat/completions", json={**ASKED, "model": name}).json()
        assert (answer["model"], answer["choices"]) == (told, base), json.dumps(answer)
    for caller, status in ((stranger, 404), (friend, 200)):
        headers = {"authorization": f"Bearer {caller.key}"}
        asked = {**ASKED, "model": kept.model_name}
        answered = httpx.post(f"{server_url}/v1/chat/completions", json=asked, headers=headers, timeout=60)
        assert answered.status_code == status, answered.text
