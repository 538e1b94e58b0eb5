"""Evals over the API: what is made, refused, changed and listed."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy.orm import Session

from tests.app.answers import error_of
from tests.factories import GRADER, Tenant, make_eval

SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
CONFIG: dict[str, Any] = {"type": "custom", "item_schema": SCHEMA}
BODY: dict[str, Any] = {"data_source_config": CONFIG, "testing_criteria": [GRADER]}


def test_an_eval_is_made_read_changed_and_deleted(client: openai.OpenAI) -> None:
    made = client.evals.create(
        data_source_config={"type": "custom", "item_schema": SCHEMA, "include_sample_schema": True},
        testing_criteria=[GRADER],  # type: ignore[list-item]
        name="letters",
        metadata={"a": "1"},
    )
    assert (made.object, made.name, made.metadata) == ("eval", "letters", {"a": "1"})
    config = made.data_source_config.model_dump(by_alias=True)
    assert config["schema"]["properties"]["item"] == SCHEMA
    assert config["schema"]["required"] == ["item", "sample"]
    (criterion,) = made.testing_criteria
    assert criterion.id.startswith("same-")  # type: ignore[union-attr]
    assert client.evals.retrieve(made.id).to_dict() == made.to_dict()
    assert client.evals.update(made.id, name="other").name == "other"
    assert client.evals.update(made.id, metadata=None).metadata is None
    assert client.evals.retrieve(made.id).name == "other"
    deleted = client.evals.delete(made.id)
    assert (deleted.eval_id, deleted.deleted) == (made.id, True)
    with pytest.raises(openai.NotFoundError):
        client.evals.retrieve(made.id)


def test_criteria_of_every_kind_are_kept_with_what_was_left_out(http: httpx.Client) -> None:
    from_an_eval = {**GRADER, "id": "same-of-another-eval"}
    ours = {"type": "multi", "graders": {"a": GRADER}, "calculate_output": "a"}
    body = {**BODY, "testing_criteria": [from_an_eval, ours]}
    first, second = http.post("/v1/evals", json=body).raise_for_status().json()["testing_criteria"]
    assert first["id"] != from_an_eval["id"]
    assert {name: first[name] for name in GRADER} == GRADER
    assert second["id"].startswith(f"{second['name']}-")


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"testing_criteria": []}, "testing_criteria", "invalid_value"),
    (
        {"testing_criteria": [{**GRADER, "operation": "is"}]},
        "testing_criteria[0].operation",
        "invalid_value",
    ),
    ({"testing_criteria": [GRADER, {"type": "x"}]}, "testing_criteria[1].type", "invalid_value"),
    (
        {
            "testing_criteria": [
                {
                    "type": "text_similarity",
                    "name": "near",
                    "input": "a",
                    "reference": "b",
                    "evaluation_metric": "bleu",
                }
            ]
        },
        "testing_criteria[0].pass_threshold",
        "missing_required_parameter",
    ),
    ({"data_source_config": {"type": "x"}}, "data_source_config.type", "invalid_value"),
    ({"data_source_config": {}}, "data_source_config.type", "missing_required_parameter"),
    (
        {"data_source_config": {"type": "custom"}},
        "data_source_config.item_schema",
        "missing_required_parameter",
    ),
    (
        {"data_source_config": {"type": "custom", "item_schema": {"type": "thing"}}},
        "data_source_config.item_schema",
        "invalid_value",
    ),
    (
        {"data_source_config": {"type": "logs", "metadata": {"a": 1}}},
        "data_source_config.metadata.a",
        "invalid_type",
    ),
    ({"name": ""}, "name", "string_below_min_length"),
    ({"colour": "red"}, "colour", "unknown_parameter"),
]


def test_what_is_wrong_is_named(http: httpx.Client, subtests: pytest.Subtests) -> None:
    for changes, param, code in WRONG:
        with subtests.test(f"{param} {code}"):
            refused = http.post("/v1/evals", json={**BODY, **changes})
            assert refused.status_code == 400
            assert (error_of(refused)["param"], error_of(refused)["code"]) == (param, code)


def test_all_that_is_wrong_is_told_at_once(http: httpx.Client) -> None:
    body = {"data_source_config": {"type": "x"}, "testing_criteria": [{"type": "y"}, {"type": "z"}]}
    told = error_of(http.post("/v1/evals", json=body))["errors"]
    assert [one["param"] for one in told] == [
        "data_source_config.type",
        "testing_criteria[0].type",
        "testing_criteria[1].type",
    ]


def test_lists_go_by_age_or_by_last_change_also_behind_what_is_gone(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    ids = []
    for _ in range(3):
        ids.append(make_eval(db, tenant.project_id).id)
        db.commit()  # created_at is the transaction's

    def listed(**params: Any) -> list[str]:
        return [one["id"] for one in http.get("/v1/evals", params=params).raise_for_status().json()["data"]]

    http.post(f"/v1/evals/{ids[0]}", json={"name": "changed"}).raise_for_status()
    assert listed() == ids
    assert listed(order="desc", limit=2) == [ids[2], ids[1]]
    assert listed(order_by="updated_at") == [ids[1], ids[2], ids[0]]
    http.delete(f"/v1/evals/{ids[2]}").raise_for_status()
    assert listed(order_by="updated_at", after=ids[2]) == [ids[0]]
    assert listed(after=ids[2]) == []


def test_a_reinforcement_job_makes_an_eval_that_may_be_deleted(
    client: openai.OpenAI, job_body: dict[str, Any]
) -> None:
    job = client.fine_tuning.jobs.create(**job_body)
    (made,) = client.evals.list()
    assert job.eval_id == made.id  # type: ignore[attr-defined]
    assert made.metadata == {"fine_tuning_job": job.id}
    assert made.testing_criteria[0].name == GRADER["name"]
    client.evals.delete(made.id)
    assert client.fine_tuning.jobs.retrieve(job.id).status == "validating_files"
    tuned = {name: job_body[name] for name in ("model", "training_file")}
    assert client.fine_tuning.jobs.create(**tuned).eval_id is None  # type: ignore[attr-defined]
    assert list(client.evals.list()) == []
