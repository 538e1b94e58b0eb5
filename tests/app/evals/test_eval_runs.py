"""Runs of evals over the API: what is refused, and how runs and their items are read."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.evals.data_sources import sampling
from app.evals.models import Eval, EvalOutputItem, EvalRun
from app.settings import get_settings
from app.webhooks.models import WebhookEvent
from tests.app.answers import error_of
from tests.factories import (
    Tenant,
    make_eval,
    make_eval_run,
    make_output_item,
    make_webhook_endpoint,
)

CONTENT = {"type": "file_content", "content": [{"item": {"answer": "a"}, "sample": {"output_text": "a"}}]}
JSONL = {"type": "jsonl", "source": CONTENT}
ASKED = {"type": "item_reference", "item_reference": "item.messages"}
SAMPLED = {"type": "completions", "model": "cherry-nano", "source": CONTENT, "input_messages": ASKED}


@pytest.fixture
def of(db: Session, tenant: Tenant) -> Eval:
    made = make_eval(db, tenant.project_id)
    db.commit()
    return made


@pytest.fixture
def with_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHERRY_SAMPLER_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("CHERRY_JUDGES", '{"other": {"base_url": "http://127.0.0.1:9/v1"}}')
    get_settings.cache_clear()


def test_a_run_is_queued_read_canceled_and_deleted(client: openai.OpenAI, of: Eval) -> None:
    made = client.evals.runs.create(of.id, name="first", metadata={"a": "1"}, data_source=JSONL)  # type: ignore[arg-type]
    assert (made.object, made.status, made.name, made.model) == ("eval.run", "queued", "first", "")
    assert made.result_counts.to_dict() == {"total": 0, "errored": 0, "failed": 0, "passed": 0}
    assert made.data_source.to_dict() == JSONL
    assert made.report_url.endswith(f"/dashboard/evals/{of.id}/runs/{made.id}")
    assert client.evals.runs.retrieve(made.id, eval_id=of.id).to_dict() == made.to_dict()
    assert [run.id for run in client.evals.runs.list(of.id, status="queued")] == [made.id]
    canceled = client.evals.runs.cancel(made.id, eval_id=of.id)
    assert canceled.status == "canceled"
    assert client.evals.runs.cancel(made.id, eval_id=of.id).status == "canceled", "again is no error"
    assert client.evals.runs.list(of.id, status="queued").data == []
    assert client.evals.runs.delete(made.id, eval_id=of.id).run_id == made.id
    with pytest.raises(openai.NotFoundError):
        client.evals.runs.retrieve(made.id, eval_id=of.id)


WRONG: list[tuple[dict[str, Any], str, str | None]] = [
    ({"type": "x"}, "data_source.type", "invalid_value"),
    ({"type": "jsonl"}, "data_source.source", "missing_required_parameter"),
    ({"type": "jsonl", "source": {"type": "logs"}}, "data_source.source.type", "invalid_value"),
    (
        {"type": "jsonl", "source": {"type": "file_content", "content": []}},
        "data_source.source.content",
        "invalid_value",
    ),
    (
        {"type": "jsonl", "source": {"type": "file_content", "content": [{"sample": {}}]}},
        "data_source.source.content[0].item",
        "missing_required_parameter",
    ),
    ({"type": "jsonl", "source": {"type": "file_id", "id": "file-x"}}, "data_source.source.id", None),
    ({**JSONL, "model": "cherry-nano"}, "data_source.model", "unknown_parameter"),
    ({**SAMPLED, "model": "none"}, "data_source.model", "model_not_found"),
    (
        {**SAMPLED, "input_messages": None},
        "data_source.input_messages",
        "missing_required_parameter",
    ),
    ({**SAMPLED, "model": None}, "data_source.model", "missing_required_parameter"),
    (
        {**SAMPLED, "input_messages": {"type": "item_reference", "item_reference": "sample.x"}},
        "data_source.input_messages.item_reference",
        "invalid_value",
    ),
    (
        {
            **SAMPLED,
            "input_messages": {
                "type": "template",
                "template": [{"role": "user", "content": "{{sample.output_text}}"}],
            },
        },
        "data_source.input_messages.template[0].content",
        "invalid_value",
    ),
    (
        {
            **SAMPLED,
            "input_messages": {"type": "template", "template": [{"role": "user", "content": "{{item.a"}]},
        },
        "data_source.input_messages.template[0].content",
        "invalid_value",
    ),
    (
        {
            **SAMPLED,
            "input_messages": {"type": "template", "template": [{"role": "me", "content": "x"}]},
        },
        "data_source.input_messages.template[0].role",
        "invalid_value",
    ),
    (
        {**SAMPLED, "sampling_params": {"temperature": 3}},
        "data_source.sampling_params.temperature",
        "decimal_above_max_value",
    ),
    (
        {**SAMPLED, "sampling_params": {"response_format": {"type": "xml"}}},
        "data_source.sampling_params.response_format.type",
        "invalid_value",
    ),
    (
        {**SAMPLED, "base_url": "http://10.0.0.1/v1"},
        "data_source.base_url",
        "invalid_value",
    ),
    ({**SAMPLED, "api_key_name": "k"}, "data_source.base_url", "missing_required_parameter"),
]


def test_what_is_wrong_is_named(
    http: httpx.Client, of: Eval, with_sampler: None, subtests: pytest.Subtests
) -> None:
    for source, param, code in WRONG:
        with subtests.test(f"{param} {code}"):
            refused = http.post(f"/v1/evals/{of.id}/runs", json={"data_source": source})
            assert refused.status_code == (404 if code in (None, "model_not_found") else 400)
            assert (error_of(refused)["param"], error_of(refused)["code"]) == (param, code)
            assert not error_of(refused)["message"].endswith("..")


def test_who_answers_is_named_by_the_name_of_the_model_itself(
    http: httpx.Client, of: Eval, with_sampler: None
) -> None:
    for name in ("cherry-nano", "other"):
        made = http.post(f"/v1/evals/{of.id}/runs", json={"data_source": {**SAMPLED, "model": name}})
        assert (made.status_code, made.json()["model"]) == (201, name)


def test_a_model_here_is_given_tools_and_an_effort(http: httpx.Client, of: Eval, with_sampler: None) -> None:
    asked = {
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "reasoning_effort": "low",
        "max_thinking_tokens": 0,
        "template_kwargs": {"enable_thinking": False},
    }
    made = http.post(f"/v1/evals/{of.id}/runs", json={"data_source": {**SAMPLED, "sampling_params": asked}})
    assert made.status_code == 201
    assert made.json()["data_source"]["sampling_params"].items() >= asked.items()
    params = sampling("completions", asked)
    assert (
        params.items()
        >= {
            "reasoning_effort": "low",
            "max_thinking_tokens": 0,
            "chat_template_kwargs": {"enable_thinking": False},
        }.items()
    )


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"max_thinking_tokens": -1}, "max_thinking_tokens"),
        ({"max_thinking_tokens": "0"}, "max_thinking_tokens"),
        ({"template_kwargs": ["enable_thinking"]}, "template_kwargs"),
    ],
    ids=str,
)
def test_how_much_a_model_thinks_is_checked(
    http: httpx.Client, of: Eval, with_sampler: None, params: dict[str, Any], param: str
) -> None:
    source = {**SAMPLED, "sampling_params": params}
    refused = http.post(f"/v1/evals/{of.id}/runs", json={"data_source": source})
    assert (refused.status_code, error_of(refused)["param"]) == (400, f"data_source.sampling_params.{param}")


def test_without_a_sampler_no_model_of_this_service_answers(http: httpx.Client, of: Eval) -> None:
    refused = http.post(f"/v1/evals/{of.id}/runs", json={"data_source": SAMPLED})
    assert (refused.status_code, error_of(refused)["code"]) == (503, "sampler_unavailable")


def test_items_are_read_in_the_order_of_the_data_page_by_page(
    client: openai.OpenAI, db: Session, of: Eval
) -> None:
    run = make_eval_run(db, of, status="in_progress", total=4)
    ids = [make_output_item(db, run, seq).id for seq in (1, 2)]
    ids.append(make_output_item(db, run, 3, status="fail").id)
    make_output_item(db, run, 4, status="waiting", results=[], sample=None)
    db.commit()
    items = client.evals.runs.output_items

    def listed(**params: Any) -> list[str]:
        return [item.id for item in items.list(run.id, eval_id=of.id, **params)]

    assert listed(limit=1) == ids
    assert listed(order="desc") == ids[::-1]
    assert listed(status="fail") == [ids[2]]
    assert items.retrieve(ids[0], eval_id=of.id, run_id=run.id).results[0].passed
    with pytest.raises(openai.NotFoundError):
        items.retrieve("outputitem_x", eval_id=of.id, run_id=run.id)


def test_a_run_that_is_over_cannot_be_canceled(http: httpx.Client, db: Session, of: Eval) -> None:
    run = make_eval_run(db, of, status="completed")
    db.commit()
    refused = http.post(f"/v1/evals/{of.id}/runs/{run.id}")
    assert refused.status_code == 400
    assert "has already completed" in error_of(refused)["message"]


def test_webhooks_tell_of_a_canceled_run_once(
    http: httpx.Client, db: Session, tenant: Tenant, of: Eval
) -> None:
    make_webhook_endpoint(db, tenant.project_id, types=("eval.run.canceled",))
    run = make_eval_run(db, of)
    db.commit()
    for _ in range(2):
        http.post(f"/v1/evals/{of.id}/runs/{run.id}").raise_for_status()
    (event,) = db.scalars(select(WebhookEvent)).all()
    assert (event.type, run.id in event.body) == ("eval.run.canceled", True)


def test_an_eval_goes_with_its_runs_and_items(http: httpx.Client, db: Session, of: Eval) -> None:
    run = make_eval_run(db, of, status="in_progress")
    make_output_item(db, run)
    db.commit()
    http.delete(f"/v1/evals/{of.id}").raise_for_status()
    for table in (Eval, EvalRun, EvalOutputItem):
        assert db.scalars(select(table)).all() == []


def test_a_project_has_only_so_many_under_way(
    http: httpx.Client, of: Eval, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHERRY_MAX_ACTIVE_JOBS", "1")
    get_settings.cache_clear()
    assert http.post(f"/v1/evals/{of.id}/runs", json={"data_source": JSONL}).status_code == 201
    assert http.post(f"/v1/evals/{of.id}/runs", json={"data_source": JSONL}).status_code == 429
