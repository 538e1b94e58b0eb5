"""All that is wrong with a body is told by one answer, whoever finds it."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import openai
import pytest

from app.errors import MOST_TOLD
from app.jobs.models import Job
from tests.app.answers import error_of
from tests.app.jobs.job_requests import changed

BLOCK = "method.reinforcement"
JOBS = "/v1/fine_tuning/jobs"


def told(response: httpx.Response) -> dict[str, str]:
    """Each fault's code by its field; the first is the error's own."""
    error = error_of(response)
    first = error["errors"][0]
    assert (error["param"], error["code"]) == (first["param"], first["code"])
    assert error["message"].startswith(first["message"])
    assert all(one["message"] in error["message"] for one in error["errors"])
    return {one["param"]: one["code"] for one in error["errors"]}


@pytest.fixture
def wrong(job_body: dict[str, Any]) -> dict[str, Any]:
    """A body whose form is right, and whose every field is wrong all the same."""
    grader = {
        "type": "multi",
        "graders": {
            "a": {"type": "string_check", "input": "x", "reference": "y", "operation": "is"},
            "b": {"type": "score_model", "input": []},
        },
        "calculate_output": "a + c",
    }
    body = changed(job_body, f"{BLOCK}.grader", grader)
    body = changed(body, f"{BLOCK}.response_format", {"type": "object", "properties": {}})
    return body | {"model": "gpt-9", "validation_file": "file-none", "resources": {"gpus": 1, "processes": 1}}


FOUND_LATE = {
    f"{BLOCK}.grader.graders.a.operation": "invalid_value",
    f"{BLOCK}.grader.graders.b.model": "missing_required_parameter",
    f"{BLOCK}.grader.calculate_output": "invalid_value",
    f"{BLOCK}.response_format.type": "invalid_value",
    "model": "model_not_available",
    "validation_file": None,
}


@pytest.mark.parametrize("path", [JOBS, f"{JOBS}/preflight"])
def test_what_is_found_in_a_body_of_the_right_form_comes_together(
    http: httpx.Client, wrong: dict[str, Any], path: str
) -> None:
    response = http.post(path, json=wrong)
    assert response.status_code == 400
    found = told(response)
    assert found.items() >= FOUND_LATE.items()
    assert found["resources"] == "invalid_value"


def test_what_is_wrong_with_the_form_comes_together_with_the_rest(
    http: httpx.Client, wrong: dict[str, Any], db: Any
) -> None:
    body = changed(wrong, f"{BLOCK}.hyperparameters", {"n_epochs": 0, "batch_size": "many", "rate": 1})
    body = {**body, "seed": -1, "metadata": {"k": 1}, "colour": "red"}
    del body["training_file"]
    found = told(http.post(JOBS, json=body))
    assert (
        found.items()
        >= (
            FOUND_LATE
            | {
                "training_file": "missing_required_parameter",
                "seed": "integer_below_min_value",
                "metadata.k": "invalid_type",
                "colour": "unknown_parameter",
                f"{BLOCK}.hyperparameters.n_epochs": "integer_below_min_value",
                f"{BLOCK}.hyperparameters.rate": "unknown_parameter",
            }
        ).items()
    )
    assert f"{BLOCK}.hyperparameters.batch_size" in found
    assert db.query(Job).count() == 0


def test_one_fault_is_told_as_before(http: httpx.Client, job_body: dict[str, Any]) -> None:
    error = error_of(http.post(JOBS, json=job_body | {"seed": -1}))
    assert set(error) == {"message", "type", "param", "code"}
    assert "Also" not in error["message"]


def test_a_field_is_told_once(http: httpx.Client, job_body: dict[str, Any]) -> None:
    """A wrong model is no unknown one too, and a number that is also none of the words is one fault."""
    body = changed(job_body, f"{BLOCK}.hyperparameters", {"n_epochs": "many"}) | {"model": ""}
    error = error_of(http.post(JOBS, json=body))
    assert [one["param"] for one in error["errors"]] == ["model", f"{BLOCK}.hyperparameters.n_epochs"]


def test_only_files_that_are_missing_are_a_404(http: httpx.Client, job_body: dict[str, Any]) -> None:
    names = {"training_file": "file-one", "validation_file": "file-two", "canary_file": "file-three"}
    response = http.post(JOBS, json=job_body | names)
    assert response.status_code == 404
    assert list(told(response)) == list(names)


def test_the_fields_of_the_old_block_come_together(http: httpx.Client, job_body: dict[str, Any]) -> None:
    body = {name: value for name, value in job_body.items() if name != "method"}
    body["hyperparameters"] = {"n_epochs": -1, "colour": "red"}
    found = told(http.post(JOBS, json=body))
    assert set(found) == {"hyperparameters.n_epochs", "hyperparameters.colour"}


def test_a_great_many_faults_are_counted(http: httpx.Client, job_body: dict[str, Any]) -> None:
    error = error_of(http.post(JOBS, json=job_body | {f"x{i}": i for i in range(MOST_TOLD + 5)}))
    assert len(error["errors"]) == MOST_TOLD
    assert error["message"].endswith("And 5 more.")


def test_a_graders_faults_come_with_those_of_the_run(http: httpx.Client) -> None:
    body = {"grader": {"type": "string_check", "colour": 1}, "item": []}
    found = told(http.post("/v1/fine_tuning/alpha/graders/run", json=body))
    assert set(found) == {
        "model_sample",
        "item",
        *(f"grader.{name}" for name in ("input", "reference", "operation", "colour")),
    }


def test_the_official_client_shows_them_all(client: openai.OpenAI, wrong: dict[str, Any]) -> None:
    ours = {"resources": wrong.pop("resources")}
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.create(**wrong, extra_body=ours)
    assert refused.value.param == f"{BLOCK}.grader.graders.a.operation"
    assert all(
        f"'{param}'" in str(refused.value) for param in (f"{BLOCK}.grader.graders.b.model", "resources")
    )
