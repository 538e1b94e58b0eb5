"""The service over a real vLLM server of the built-in model: `make vllm` starts one and names it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy.orm import Session

from app.settings import get_settings
from tests.app.answers import error_of
from tests.app.inference.conftest import BUILT_IN, point_at
from tests.app.inference.test_chat import events
from tests.factories import Tenant, make_checkpoint, make_job, make_model, make_tuned_model

URL = os.environ.get("CHERRY_TEST_VLLM_URL", "")
pytestmark = pytest.mark.skipif(not URL, reason="no vLLM server runs here: `make vllm`")
ASKED: dict[str, Any] = {
    "model": "cherry-nano",
    "messages": [{"role": "user", "content": "hello"}],
    "max_completion_tokens": 12,
    "temperature": 0,
}


@pytest.fixture
def vllm(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The server, with room for two adapters."""
    monkeypatch.setenv("CHERRY_SAMPLER_ADAPTERS", "2")
    point_at(monkeypatch, URL)
    yield URL
    get_settings.cache_clear()


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bytes]]:
    """The files of three LoRA adapters, each of which says something of its own."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    made = []
    for number in range(3):
        torch.manual_seed(number)
        model = AutoModelForCausalLM.from_pretrained(BUILT_IN)
        config = LoraConfig(r=8, lora_alpha=64, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        folder: Path = tmp_path_factory.mktemp("adapter")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT reads what transformers has renamed
            get_peft_model(model, config).save_pretrained(str(folder))
        made.append(
            {f"adapter/{path.name}": path.read_bytes() for path in folder.iterdir() if path.is_file()}
        )
    return made


def said(http: httpx.Client, model: str) -> str:
    answer = http.post("/v1/chat/completions", json={**ASKED, "model": model})
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def test_every_endpoint_answers(client: openai.OpenAI, vllm: str) -> None:
    chat = client.chat.completions.create(**{**ASKED, "temperature": 1}, n=2, logprobs=True, top_logprobs=2)
    assert len(chat.choices) == 2
    assert all(len(token.top_logprobs) == 2 for token in chat.choices[0].logprobs.content or ())  # type: ignore[union-attr]
    text = client.completions.create(model="cherry-nano", prompt="hello", max_tokens=5, echo=True, logprobs=1)
    assert text.choices[0].text.startswith("hello")
    reply = client.responses.create(
        model="cherry-nano",
        input="hello",
        max_output_tokens=60,
        temperature=0,
        text={
            "format": {
                "type": "json_schema",
                "name": "a",
                "schema": {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]},
            }
        },
    )
    assert reply.output_text.startswith("{")
    assert client.responses.input_tokens.count(model="cherry-nano", input="hello").input_tokens > 0


def test_a_stream_is_the_published_sequence(http: httpx.Client, vllm: str) -> None:
    *chunks, last = events(http, {**ASKED, "stream_options": {"include_usage": True}})
    assert last == "[DONE]"
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
    assert all(delta.keys() == {"content"} for delta in deltas[1:-1])
    assert deltas[-1] == {}
    assert "".join(delta.get("content", "") for delta in deltas) == said(http, "cherry-nano")
    assert chunks[-1]["usage"]["prompt_tokens"] > 0


def test_it_says_what_the_sampler_says(
    http: httpx.Client, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = said(http, "cherry-nano")
    assert sampler
    point_at(monkeypatch, URL)
    assert said(http, "cherry-nano") == ours


def test_adapters_are_loaded_on_demand_and_make_room(
    http: httpx.Client, db: Session, tenant: Tenant, vllm: str, adapters: list[dict[str, bytes]]
) -> None:
    names = []
    for number, files in enumerate(adapters):
        job = make_job(db, tenant.project_id)
        model = make_tuned_model(db, job, f"ft:cherry-nano:acme:x:AbCd123{number}")
        model.storage_key = make_checkpoint(db, job, 1, files).storage_key
        names.append(model.name)
    db.commit()
    texts = [said(http, name) for name in names]
    assert len({said(http, "cherry-nano"), *texts}) == 4
    assert [said(http, name) for name in names] == texts
    listed = {one["id"] for one in httpx.get(f"{vllm}/v1/models").json()["data"] if one.get("parent")}
    assert len([name for name in listed if name.startswith("ftckpt_")]) == 2


def test_what_it_cannot_serve_or_read_is_refused(http: httpx.Client, db: Session, vllm: str) -> None:
    make_model(db, "other", "models/other")
    db.commit()
    assert (
        error_of(http.post("/v1/chat/completions", json={**ASKED, "model": "other"}))["code"]
        == "model_not_served"
    )
    long = {**ASKED, "messages": [{"role": "user", "content": "x" * 20_000}]}
    refused = http.post("/v1/chat/completions", json=long)
    assert refused.status_code == 400, refused.text
