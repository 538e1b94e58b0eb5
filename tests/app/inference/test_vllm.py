"""A vLLM server as the back end: told apart by asking, adapters loaded on demand, the rest refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy.orm import Session

from app.grading.services import forget_services, grader_services
from app.settings import get_settings
from tests.app.answers import error_of
from tests.app.inference.conftest import BUILT_IN, point_at
from tests.app.inference.model_server import ModelServer, running
from tests.factories import Tenant, make_checkpoint, make_job, make_model, make_tuned_model

PATH = "/v1/chat/completions"
ADAPTER = {"adapter/adapter_config.json": b"{}", "adapter/adapter_model.safetensors": b"x"}


@pytest.fixture
def vllm(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """A vLLM server that serves the built-in model by its folder, with room for two adapters."""
    server = ModelServer("vllm", base="served", root=str(BUILT_IN))
    monkeypatch.setenv("CHERRY_SAMPLER_ADAPTERS", "2")
    with running(server.app()) as url:
        point_at(monkeypatch, url)
        yield server
    get_settings.cache_clear()


def ask(http: httpx.Client, model: str) -> httpx.Response:
    return http.post(PATH, json={"model": model, "messages": [{"role": "user", "content": "hello"}]})


def tuned(
    db: Session, tenant: Tenant, number: int, files: dict[str, bytes], base: str = "cherry-nano"
) -> str:
    """The name of a tuned model whose checkpoint has these files."""
    job = make_job(db, tenant.project_id, model=base)
    made = make_tuned_model(db, job, f"ft:cherry-nano:acme:x:AbCd123{number}")
    checkpoint = make_checkpoint(db, job, 1, files)
    made.storage_key = checkpoint.storage_key
    db.commit()
    return made.name


def test_thoughts_and_tools_have_its_names(http: httpx.Client, vllm: ModelServer) -> None:
    messages = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Hi.", "reasoning_content": "Hm."},
        {"role": "user", "content": "and?"},
    ]
    tools = [{"type": "function", "function": {"name": "f"}}]
    asked = {"model": "cherry-nano", "messages": messages, "tools": tools, "max_thinking_tokens": 5}
    http.post(PATH, json={**asked, "chat_template_kwargs": {"enable_thinking": True}}).raise_for_status()
    told = vllm.asked[0]
    assert (told["thinking_token_budget"], "max_thinking_tokens" in told) == (5, False)
    assert (told["tools"], told["chat_template_kwargs"]) == (tools, {"enable_thinking": True})
    assert told["messages"][1] == {"role": "assistant", "content": "Hi.", "reasoning": "Hm."}


def test_the_base_is_known_by_its_folder(http: httpx.Client, db: Session, vllm: ModelServer) -> None:
    made = ask(http, "cherry-nano").json()
    assert (made["model"], vllm.asked[0]["model"]) == ("cherry-nano", "served")
    make_model(db, "other", "models/other")
    db.commit()
    refused = ask(http, "other")
    assert (refused.status_code, error_of(refused)["code"]) == (400, "model_not_served")
    assert "serves served" in error_of(refused)["message"]


def test_adapters_are_loaded_on_demand_and_make_room(
    http: httpx.Client, db: Session, tenant: Tenant, vllm: ModelServer
) -> None:
    names = [tuned(db, tenant, number, ADAPTER) for number in range(3)]
    for name in (names[0], names[0], names[1], names[0], names[2]):
        assert ask(http, name).json()["model"] == name
    asked = [one["model"] for one in vllm.asked]
    first, second, third = asked[0], asked[2], asked[4]
    assert vllm.calls == [f"load {first}", f"load {second}", f"unload {second}", f"load {third}"]
    assert asked == [first, first, second, first, third]
    assert all(name.startswith("ftckpt_") for name in asked)
    folder = Path(vllm.adapters[first])
    assert (folder / "adapter_config.json").is_file()
    vllm.adapters.clear()  # as if it had been restarted
    assert ask(http, names[0]).status_code == 200
    vllm.calls.clear()
    vllm.adapters[first + "x"] = ""
    assert ask(http, names[0]).status_code == 200
    assert vllm.calls == []


def test_what_it_cannot_serve_is_refused_with_the_reason(
    http: httpx.Client, db: Session, tenant: Tenant, vllm: ModelServer
) -> None:
    whole = tuned(db, tenant, 1, {"model/config.json": b"{}"})
    refused = ask(http, whole)
    assert (refused.status_code, error_of(refused)["code"]) == (400, "model_not_served")
    assert "no LoRA adapter" in error_of(refused)["message"]
    twice = tuned(db, tenant, 2, ADAPTER, base=whole)
    assert "tuned from a tuned model" in error_of(ask(http, twice))["message"]
    assert vllm.asked == []


def test_judges_are_its_base_model_alone(
    db: Session, tenant: Tenant, vllm: ModelServer, http: httpx.Client
) -> None:
    name = tuned(db, tenant, 1, ADAPTER)
    spec: dict[str, Any] = {
        "type": "label_model",
        "name": "judge",
        "labels": ["good", "bad"],
        "passing_labels": ["good"],
        "input": [{"role": "user", "content": "Is {{sample.output_text}} good?"}],
    }
    body = {"grader": {**spec, "model": "cherry-nano"}, "model_sample": "a", "item": {}}
    vllm.words = ('{"steps": [], "result": "good"}',)
    forget_services()
    run = http.post("/v1/fine_tuning/alpha/graders/run", json=body)
    assert run.status_code == 200, run.text
    assert vllm.asked[0]["model"] == "served"
    refused = http.post("/v1/fine_tuning/alpha/graders/validate", json={"grader": {**spec, "model": name}})
    assert refused.status_code == 400
    assert "vLLM" in error_of(refused)["message"]
    judges: Any = grader_services(tenant.project_id).judge
    for judge in judges._judges._made.values():
        judge.server._client.close()  # its connections are kept for the next question
