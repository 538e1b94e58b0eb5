"""What runs of evals come to: rows of every source, answers given or asked for, and what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.evals import runs
from app.evals.models import EvalOutputItem, EvalRun
from app.evals.service import LOGGED_SCHEMA, whole_schema
from graders.judges.fence import fenced_texts
from tests.app.grading.judge_servers import asked, refused, said
from tests.app.webhooks.receivers import Received, Receiver
from tests.factories import (
    GRADER,
    Tenant,
    make_eval,
    make_eval_run,
    make_file,
    make_stored_chat,
    make_stored_response,
)
from tests.workers.jobs.test_judged_jobs import judge
from workers.evals.carrying_out import MOST_OUTAGES, carry_out
from workers.evals.faults import AnswerFailed, RunInvalid
from workers.evals.judging import check_item, item_check

LEASE = timedelta(seconds=60)
LOGS = {"type": "logs", "metadata": {"a": "1"}, "schema": whole_schema(LOGGED_SCHEMA, with_sample=True)}
ASK = {"type": "template", "template": [{"role": "user", "content": "Say {{item.answer}}"}]}


def source(kind: str = "completions", *, rows: Any = None, **more: Any) -> dict[str, Any]:
    rows = rows if isinstance(rows, dict) else {"type": "file_content", "content": rows}
    return {"type": kind, "source": rows, **more}


def carried_out(run: EvalRun) -> EvalRun:
    """Claims and carries out the one run that waits."""
    with unit_of_work() as db:
        claim = runs.claim_next(db, "me", LEASE)
    assert claim is not None
    carry_out(claim)
    with unit_of_work() as db:
        return db.get_one(EvalRun, run.id)


def failed(run: EvalRun) -> RunInvalid:
    with pytest.raises(RunInvalid) as caught:
        carried_out(run)
    return caught.value


def items_of(db: Session, run: EvalRun) -> list[EvalOutputItem]:
    mine = select(EvalOutputItem).where(EvalOutputItem.run_id == run.id).order_by(EvalOutputItem.seq)
    return list(db.scalars(mine, execution_options={"populate_existing": True}))


def queued(db: Session, tenant: Tenant, data_source: dict[str, Any], **of: Any) -> EvalRun:
    run = make_eval_run(db, make_eval(db, tenant.project_id, **of), data_source=data_source)
    db.commit()
    return run


def test_a_rubric_is_a_criterion_that_passes_from_half_of_its_points(
    db: Session, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    rubric = {
        "id": "care-1",
        "type": "rubric",
        "name": "care",
        "model": "judge",
        "criteria": "{{item.rubrics}}",
    }
    rubrics = [{"criterion": "Is kind.", "points": 6}, {"criterion": "Is short.", "points": 4}]
    rows = [
        {
            "item": {"prompt": [{"role": "user", "content": "Hi"}], "rubrics": rubrics},
            "sample": {"output_text": text},
        }
        for text in ("kind", "short")
    ]

    def answering(received: Received) -> Any:
        is_kind = fenced_texts(asked(received)["messages"][1]["content"])[1] == ("answer", "kind")
        return said(
            json.dumps({"1": {"reason": "", "met": is_kind}, "2": {"reason": "", "met": not is_kind}})
        )

    with judge(monkeypatch, answering):
        run = queued(
            db,
            tenant,
            source("jsonl", rows=rows),
            testing_criteria=[rubric],
            data_source_config={
                "type": "custom",
                "schema": whole_schema({"type": "object"}, with_sample=True),
            },
        )
        carried_out(run)
    first, second = (item.results[0] for item in items_of(db, run))
    assert (first["score"], first["passed"], second["score"], second["passed"]) == (0.6, True, 0.4, False)
    assert first["sample"]["scores"]["wanted"] == 0.6


def test_rows_that_bring_their_answers_are_judged_each_by_every_criterion(
    db: Session, tenant: Tenant
) -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    near = {
        "id": "near-1",
        "type": "text_similarity",
        "name": "near",
        "input": "{{sample.output_text}}",
        "reference": "{{item.answer}}",
        "evaluation_metric": "fuzzy_match",
        "pass_threshold": 0.6,
    }
    rows = [
        {"item": {"answer": "abc"}, "sample": {"output_text": "abc"}},
        {"item": {"answer": "abc"}, "sample": {"choices": [{"message": {"content": "abd"}}]}},
        {"item": {"answer": "abc"}, "sample": {"output_text": "xyz"}},
        {"item": {"answer": "abc"}, "sample": {"words": "abc"}},
        {"item": {"answer": "abc"}},
        {"item": {"answer": 3}, "sample": {"output_text": "3"}},
    ]
    run = queued(
        db,
        tenant,
        source("jsonl", rows=rows),
        testing_criteria=[{"id": "same-1", **GRADER}, near],
        data_source_config={"type": "custom", "schema": whole_schema(schema, with_sample=True)},
    )
    done = carried_out(run)
    assert (done.status, done.total, done.error) == ("completed", 6, None)
    assert done.result_counts == {"total": 6, "passed": 1, "failed": 2, "errored": 3}
    assert done.per_testing_criteria_results == [
        {"testing_criteria": "same-1", "passed": 1, "failed": 2},
        {"testing_criteria": "near-1", "passed": 2, "failed": 1},
    ]
    items = items_of(db, run)
    assert [item.status for item in items] == ["pass", "fail", "fail", "error", "error", "error"]
    first = items[1].results
    assert [(one["name"], one["type"], one["score"], one["passed"]) for one in first] == [
        ("same-1", "string_check", 0.0, False),
        ("near-1", "text_similarity", pytest.approx(2 / 3), True),
    ]
    assert items[3].sample["error"]["code"] == "invalid_sample"
    assert {one["error"]["code"] for one in items[4].results} == {"missing_sample"}
    assert items[5].sample["error"] == {
        "code": "invalid_item",
        "message": "The row does not fit the item_schema: 3 is not of type 'string' ($.answer).",
    }


def test_a_model_of_another_server_is_asked_what_the_template_says(
    db: Session, tenant: Tenant, server: Receiver, other_model: Callable[..., None]
) -> None:
    other_model(server, max_tokens_name="max_tokens", model="its-own-name")
    server.answer = lambda got: said(asked(got)["messages"][-1]["content"].removeprefix("Say "), cached=40)
    rows = [{"item": {"answer": "a"}}, {"item": {"answer": "b"}}, {"item": {"question": "c"}}]
    params = {"max_completion_tokens": 5, "temperature": 0}
    run = queued(db, tenant, source(rows=rows, model="other", input_messages=ASK, sampling_params=params))
    done = carried_out(run)
    assert done.result_counts == {"total": 3, "passed": 2, "failed": 0, "errored": 1}
    assert done.per_model_usage == [
        {
            "model_name": "other",
            "invocation_count": 2,
            "prompt_tokens": 200,
            "completion_tokens": 20,
            "total_tokens": 220,
            "cached_tokens": 80,
        }
    ]
    bodies = sorted((asked(got) for got in server.received), key=str)
    assert bodies[0] == {
        "model": "its-own-name",
        "messages": [{"role": "user", "content": "Say a"}],
        "temperature": 0,
        "top_p": 1.0,
        "seed": 42,
        "max_tokens": 5,
    }
    first, _, last = items_of(db, run)
    assert first.sample["input"] == [{"role": "user", "content": "Say a"}]
    assert first.sample["output"] == [{"role": "assistant", "content": "a"}]
    assert (first.sample["model"], first.sample["max_completion_tokens"]) == ("other", 5)
    assert last.sample["error"] == {"code": "invalid_item", "message": "There is no 'item.answer'."}


def test_an_address_of_the_runs_own_is_asked_with_the_key_that_it_names(
    db: Session, tenant: Tenant, server: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHERRY_OUTBOUND_ALLOW", "127.0.0.1")
    monkeypatch.setenv("CHERRY_OUTBOUND_ALLOW_HTTP", "1")
    monkeypatch.setenv("CHERRY_OUTBOUND_PORTS", str(server.port))
    monkeypatch.setenv("CHERRY_JUDGE_KEYS", '{"mine": {"key": "sk-1", "hosts": ["127.0.0.1"]}}')
    from app.settings import get_settings

    get_settings.cache_clear()
    server.answer = lambda _: said("a")
    place = {"base_url": f"http://127.0.0.1:{server.port}/v1", "api_key_name": "mine"}
    rows = [{"item": {"answer": "a"}}]
    run = queued(db, tenant, source(rows=rows, model="x", input_messages=ASK, **place))
    assert carried_out(run).result_counts["passed"] == 1
    assert server.received[0].headers["authorization"] == "Bearer sk-1"


def test_messages_of_a_row_are_asked_as_they_are_and_a_refusal_is_the_items_error(
    db: Session, tenant: Tenant, server: Receiver, other_model: Callable[..., None]
) -> None:
    def answer(got: Received) -> Any:
        told = asked(got)["messages"]
        return refused(400, "too long", code="context_length_exceeded") if len(told) > 1 else said("a")

    other_model(server)
    server.answer = answer
    short, long = [{"role": "user", "content": "x"}], [{"role": "user", "content": "y"}] * 2
    file = make_file(
        db,
        tenant.project_id,
        b'{"answer": "a", "messages": [{"role": "user", "content": "x"}]}\n'
        b'{"item": {"answer": "a", "messages": [{"role": "user", "content": "y"}, '
        b'{"role": "user", "content": "y"}]}}\n',
        purpose="evals",
    )
    reference = {"type": "item_reference", "item_reference": "item.messages"}
    rows = {"type": "file_id", "id": file.id}
    run = queued(db, tenant, source(rows=rows, model="other", input_messages=reference))
    assert carried_out(run).result_counts == {"total": 2, "passed": 1, "failed": 0, "errored": 1}
    assert {str(asked(got)["messages"]) for got in server.received} == {str(short), str(long)}
    assert items_of(db, run)[1].sample["error"] == {
        "code": "context_length_exceeded",
        "message": "The model 'other' answered 400: too long",
    }


def test_logs_are_judged_as_they_were_answered_or_asked_anew(
    db: Session, tenant: Tenant, server: Receiver, other_model: Callable[..., None]
) -> None:
    other_model(server)
    server.answer = lambda _: said("Hello.")
    chats = [make_stored_chat(db, tenant.project_id) for _ in range(2)]
    chats[1].meta = {"a": "2"}
    db.commit()
    hi = {"id": "hi-1", **GRADER, "reference": "Hi."}
    rows = {"type": "stored_completions", "model": "cherry-nano"}
    as_given = queued(db, tenant, source(rows=rows), data_source_config=LOGS, testing_criteria=[hi])
    assert carried_out(as_given).result_counts == {"total": 1, "passed": 1, "failed": 0, "errored": 0}
    (item,) = items_of(db, as_given)
    assert item.datasource_item == {
        "id": chats[0].id,
        "model": "cherry-nano",
        "input": [{"role": "user", "content": "Hello"}],
        "metadata": {"a": "1"},
    }
    assert item.sample["input"] == item.datasource_item["input"]
    assert item.sample["output"] == [{"role": "assistant", "content": "Hi."}]
    anew = queued(
        db, tenant, source(rows=rows, model="other"), data_source_config=LOGS, testing_criteria=[hi]
    )
    assert carried_out(anew).result_counts == {"total": 1, "passed": 0, "failed": 1, "errored": 0}
    assert asked(server.received[0])["messages"] == item.datasource_item["input"]


def test_stored_responses_are_found_by_what_was_asked_and_when(db: Session, tenant: Tenant) -> None:
    kept = make_stored_response(db, tenant.project_id)
    db.commit()
    made_at = int(kept.created_at.timestamp())
    hi = {"id": "hi-1", **GRADER, "reference": "Hi."}
    config = {"type": "logs", "schema": LOGS["schema"]}

    def run_of(**filters: Any) -> EvalRun:
        rows = {"type": "responses", **filters}
        return queued(
            db, tenant, source("responses", rows=rows), data_source_config=config, testing_criteria=[hi]
        )

    for found in ({"created_after": made_at, "created_before": made_at}, {"model": "cherry-nano"}):
        assert carried_out(run_of(**found)).result_counts["passed"] == 1
    for other in ({"created_after": made_at + 1}, {"model": "none"}, {"instructions_search": "x"}):
        fault = failed(run := run_of(**other))
        assert fault.code == "no_data"
        db.delete(db.get_one(EvalRun, run.id))
        db.commit()


def test_a_file_with_faults_fails_the_run_and_names_the_lines(db: Session, tenant: Tenant) -> None:
    file = make_file(db, tenant.project_id, b'{"item": {"answer": "a"}}\n[1]\n', purpose="evals")
    run = queued(db, tenant, source("jsonl", rows={"type": "file_id", "id": file.id}))
    fault = failed(run)
    assert fault.code == "invalid_file"
    assert fault.message.endswith("line 2: a row is a JSON object, not a list")
    assert items_of(db, run) == []


def test_a_file_that_is_gone_fails_the_run(db: Session, tenant: Tenant) -> None:
    run = queued(db, tenant, source("jsonl", rows={"type": "file_id", "id": "file-gone"}))
    assert failed(run).message == "The file file-gone was deleted before it could be read."


def test_a_run_fails_where_nobody_replies_at_all(
    db: Session, tenant: Tenant, server: Receiver, other_model: Callable[..., None]
) -> None:
    other_model(server)
    server.answer = lambda _: refused(500, "broken")
    rows = [{"item": {"answer": "a"}}] * (MOST_OUTAGES + 8)
    run = queued(db, tenant, source(rows=rows, model="other", input_messages=ASK))
    fault = failed(run)
    assert fault.code == "server_error"
    assert fault.message.endswith("The model 'other' answered 500: broken")
    assert {item.status for item in items_of(db, run)} <= {"error", "waiting"}


def test_a_model_that_is_gone_fails_the_run(db: Session, tenant: Tenant) -> None:
    rows = [{"item": {"answer": "a"}}]
    assert failed(queued(db, tenant, source(rows=rows, model="gone", input_messages=ASK))).code == (
        "model_not_found"
    )


def test_another_attempt_judges_only_what_still_waits(
    db: Session, tenant: Tenant, server: Receiver, other_model: Callable[..., None]
) -> None:
    other_model(server)
    server.answer = lambda _: said("a")
    rows = [{"item": {"answer": "a"}}] * 3
    run = queued(db, tenant, source(rows=rows, model="other", input_messages=ASK))
    carried_out(run)
    again = db.get_one(EvalRun, run.id, populate_existing=True)
    again.status = "queued"
    items_of(db, run)[1].status = "waiting"
    again.result_counts = {"total": 2, "passed": 2, "failed": 0, "errored": 0}
    db.commit()
    assert carried_out(run).result_counts == {"total": 3, "passed": 3, "failed": 0, "errored": 0}
    assert len(server.received) == 4


@pytest.mark.parametrize(
    ("schema", "item", "said"),
    [
        ({"pattern": "(a|aa)+$"}, "a" * 60 + "!", "regex timed out"),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "a", "127.0.0.1:9"),
        ({"pattern": "^b"}, "a", "'a' does not match '^b'"),
    ],
)
def test_a_schema_of_a_users_neither_hangs_nor_reaches_out(
    schema: dict[str, Any], item: str, said: str
) -> None:
    checker = item_check({"type": "custom", "schema": whole_schema({"properties": {"a": schema}}, False)})
    with pytest.raises(AnswerFailed) as caught:
        check_item(checker, {"a": item})
    assert said in str(caught.value)
    assert caught.value.error.code == "invalid_item"
