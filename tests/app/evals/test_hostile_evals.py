"""Hostile bodies to evals and runs: no fault, and whatever is kept can be read again."""

from __future__ import annotations

import random
from typing import Any

import httpx2 as httpx
from sqlalchemy.orm import Session

from tests.app.http.test_hostile import BODIES, hostile
from tests.factories import GRADER, Tenant, make_eval

MULTI = {"type": "multi", "graders": {"a": GRADER}, "calculate_output": "a"}
LABEL = {
    "type": "text_similarity",
    "name": "near",
    "input": "{{sample.output_text}}",
    "reference": "{{item.a}}",
    "evaluation_metric": "bleu",
    "pass_threshold": 0.5,
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "enum": ["x"]}}, "required": ["a"]}
CONTENT = [{"item": {"a": "x", "b": [1, {"c": None}]}, "sample": {"output_text": "y", "choices": []}}]
ROWS = {"type": "file_content", "content": CONTENT}
TEMPLATE = {"type": "template", "template": [{"role": "user", "content": "{{item.a}}", "type": "message"}]}
PARAMS = {
    "temperature": 1,
    "top_p": 0.5,
    "seed": 3,
    "max_completion_tokens": 5,
    "response_format": {"type": "text"},
}
EVALS: list[dict[str, Any]] = [
    {
        "name": "a",
        "metadata": {"b": "c"},
        "data_source_config": {"type": "custom", "item_schema": SCHEMA, "include_sample_schema": True},
        "testing_criteria": [GRADER, MULTI, LABEL],
    },
    {"data_source_config": {"type": "logs", "metadata": {"b": "c"}}, "testing_criteria": [GRADER]},
]
RUNS: list[dict[str, Any]] = [
    {"name": "a", "metadata": {"b": "c"}, "data_source": {"type": "jsonl", "source": ROWS}},
    {
        "data_source": {
            "type": "completions",
            "source": {"type": "stored_completions", "model": "m", "created_after": 1, "limit": 2},
        }
    },
    {
        "data_source": {
            "type": "responses",
            "model": "cherry-nano",
            "source": {"type": "responses", "metadata": {"b": "c"}, "users": ["d"], "top_p": 0.5},
            "input_messages": TEMPLATE,
            "sampling_params": PARAMS,
        }
    },
]


def test_no_mutation_of_a_right_body_makes_a_fault(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    chance = random.Random(0)
    of = make_eval(db, tenant.project_id)
    db.commit()
    runs = f"/v1/evals/{of.id}/runs"
    right = [*(("/v1/evals", body) for body in EVALS), *((runs, body) for body in RUNS)]
    seen: dict[str, set[int]] = {}
    for number in range(BODIES // 4):
        path, body = right[number % len(right)]
        sent = hostile(body, chance)
        response = http.post(path, content=sent, headers={"content-type": "application/json"})
        seen.setdefault(path, set()).add(response.status_code)
        is_known = response.status_code < 500 or response.json()["error"]["code"] == "sampler_unavailable"
        assert is_known, (path, sent, response.text)
        if response.status_code == 201:
            at = f"{path}/{response.json()['id']}"
            assert http.get(at).json() == response.json()
    assert all({201, 400} <= statuses for statuses in seen.values()), seen
