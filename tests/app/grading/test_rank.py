"""Rank graders over the API, in jobs' checks and in regrades, with a real judge."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.grading.services import forget_services
from app.regrades.models import RegradeResult
from app.regrades.runs import LEASES
from app.settings import get_settings
from tests.factories import make_regrade, make_rollout
from tests.judging import running_judge
from tests.workers.rows import data_rows, make_job
from workers.regrades.carrying_out import carry_out

RUN = "/v1/fine_tuning/alpha/graders/run"
RANK = {"type": "rank", "name": "better", "model": "judge"}


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """The address of a judge to whom "dog" and "play" are worth a half each."""
    with running_judge("exact", worth="words:dog,play") as judge:
        yield judge.base_url


@pytest.fixture
def rank(base_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A rank grader whose judge this service may call although it is here."""
    port = base_url.split(":")[2].split("/")[0]
    for name, value in (("ALLOW", "127.0.0.1"), ("ALLOW_HTTP", "true"), ("PORTS", port)):
        monkeypatch.setenv(f"CHERRY_OUTBOUND_{name}", value)
    get_settings.cache_clear()
    forget_services()
    yield {**RANK, "base_url": base_url}
    forget_services()


def test_several_answers_are_graded_together_and_get_a_grade_each(client: openai.OpenAI, rank: Any) -> None:
    graders: Any = client.fine_tuning.alpha.graders
    reply = graders.run(grader=rank, model_sample=["a dog", "a cat", "dogs play", "a dog"])
    results = reply.to_dict()["results"]
    assert [one["reward"] for one in results] == [0.5, 0.0, 0.5, 0.5]
    usage = [one["model_grader_token_usage_per_model"] for one in results]
    assert [bool(one) for one in usage] == [True, False, False, False]
    assert reply.reward == 0.375
    assert reply.to_dict()["model_grader_token_usage_per_model"] == usage[0]


def test_one_answer_has_no_rank_and_a_list_of_one_answer_is_still_a_list(
    http: httpx.Client, rank: Any
) -> None:
    for sample in ("a dog", ["a dog"]):
        response = http.post(RUN, json={"grader": rank, "model_sample": sample})
        assert response.status_code == 400
        error = response.json()["error"]
        assert (error["param"], error["code"]) == ("model_sample", "invalid_value")
        assert "as a list in 'model_sample'" in error["message"]
    same = {"type": "string_check", "name": "s", "operation": "eq", "input": "{{sample.output_text}}"}
    body = {"grader": {**same, "reference": "a"}, "model_sample": ["a"]}
    assert [one["reward"] for one in http.post(RUN, json=body).json()["results"]] == [1.0]


@pytest.mark.parametrize("sample", [[], 3, [1], ["a"] * 65, None])
def test_a_list_of_anything_else_is_refused_by_name(http: httpx.Client, sample: Any) -> None:
    response = http.post(RUN, json={"grader": RANK, "model_sample": sample})
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("model_sample")


def test_evals_refuse_it_as_a_criterion(http: httpx.Client, rank: Any) -> None:
    check = {"type": "string_check", "operation": "eq", "input": "x", "reference": "x"}
    multi = {
        "type": "multi",
        "name": "m",
        "calculate_output": "a + b",
        "graders": {"a": rank, "b": {**check, "name": "b"}},
    }
    config = {"type": "custom", "item_schema": {"type": "object"}, "include_sample_schema": True}
    for criterion in (rank, multi):
        body = {"data_source_config": config, "testing_criteria": [criterion]}
        response = http.post("/v1/evals", json=body)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "testing_criteria[0].type"
        assert "against each other" in response.json()["error"]["message"]


def test_a_regrade_compares_the_completions_of_each_group(db: Session, rank: Any) -> None:
    job = make_job(db, status="succeeded", validation=data_rows(6)[4:])
    for sample, text in enumerate(("a dog", "a cat", "dog play")):
        make_rollout(db, job, 1, 0, sample=sample, text=text, reward=0.0)
    make_rollout(db, job, 1, 1, text="alone", reward=1.0)
    regrade = make_regrade(db, job, grader=rank)
    db.commit()
    claim = LEASES.claim_next(db, "test", timedelta(seconds=30))
    db.commit()
    assert claim is not None
    carry_out(claim)
    mine = select(RegradeResult).where(RegradeResult.regrade_id == regrade.id)
    found = {one.ref: (one.reward, one.failure) for one in db.scalars(mine)}
    assert found == {
        "train-1-0-0": (0.5, None),
        "train-1-0-1": (0.0, None),
        "train-1-0-2": (1.0, None),
        "train-1-1-0": (None, "other_error"),
    }
