"""Requests for jobs that are refused, each by the field that is wrong."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy.orm import Session

from app.jobs.models import Job
from app.models import service as models
from tests.app.answers import error_of
from tests.app.jobs.job_requests import HYPER, allow_processes, changed
from tests.factories import (
    AUTO,
    Tenant,
    make_file,
    make_job,
    make_tenant,
    make_tuned_model,
)

FORMAT = "method.reinforcement.response_format"

REFUSED = [
    pytest.param("model", "gpt-9", 400, "model", "model_not_available", id="unknown-model"),
    pytest.param("model", 7, 400, "model", "invalid_type", id="model-number"),
    pytest.param("model", "m" * 300, 400, "model", "string_above_max_length", id="model-long"),
    pytest.param("training_file", "file-none", 404, "training_file", None, id="unknown-file"),
    pytest.param("validation_file", "file-none", 404, "validation_file", None, id="unknown-validation-file"),
    pytest.param("canary_file", "file-none", 404, "canary_file", None, id="unknown-canary-file"),
    pytest.param("training_file", None, 400, "training_file", "invalid_type", id="no-file"),
    pytest.param("epochs", 3, 400, "epochs", "unknown_parameter", id="unknown-key"),
    pytest.param("suffix", "", 400, "suffix", "string_below_min_length", id="suffix-empty"),
    pytest.param("suffix", "x" * 65, 400, "suffix", "string_above_max_length", id="suffix-long"),
    pytest.param("seed", -1, 400, "seed", "integer_below_min_value", id="seed-low"),
    pytest.param("seed", 2**31, 400, "seed", "integer_above_max_value", id="seed-high"),
    pytest.param("seed", "1", 400, "seed", "invalid_type", id="seed-text"),
    pytest.param("seed", True, 400, "seed", "invalid_type", id="seed-bool"),
    pytest.param("metadata", {"k": 1}, 400, "metadata.k", "invalid_type", id="metadata-number"),
    pytest.param(
        "metadata", {"k" * 65: "v"}, 400, "metadata." + "k" * 65, "string_above_max_length", id="metadata-key"
    ),
    pytest.param(
        "metadata", {"k": "v" * 513}, 400, "metadata.k", "string_above_max_length", id="metadata-value"
    ),
    pytest.param(
        "metadata",
        {str(n): "" for n in range(17)},
        400,
        "metadata",
        "object_above_max_properties",
        id="metadata-many",
    ),
    pytest.param(
        "integrations",
        [{"type": "wandb"}],
        400,
        "integrations[0].wandb",
        "missing_required_parameter",
        id="wandb-empty",
    ),
    pytest.param(
        "integrations",
        [{"type": "wandb", "wandb": {"project": ""}}],
        400,
        "integrations[0].wandb.project",
        "string_below_min_length",
        id="wandb-project",
    ),
    pytest.param(
        "integrations",
        [{"type": "elsewhere"}],
        400,
        "integrations[0].type",
        "invalid_value",
        id="integration-type",
    ),
    pytest.param(
        "integrations",
        [{"type": "mlflow", "mlflow": {}}],
        400,
        "integrations[0].mlflow.experiment",
        "missing_required_parameter",
        id="mlflow-experiment",
    ),
    pytest.param(
        "integrations",
        [{"type": "trackio", "trackio": {"project": "../up"}}],
        400,
        "integrations[0].trackio.project",
        "invalid_value",
        id="trackio-project",
    ),
    pytest.param(
        "integrations",
        [{"type": "tensorboard", "tensorboard": {"folder": "/etc"}}],
        400,
        "integrations[0].tensorboard",
        "unknown_parameter",
        id="tensorboard-folder",
    ),
    pytest.param(
        "integrations",
        [{"type": "wandb", "wandb": {"project": "p"}}] * 6,
        400,
        "integrations",
        "array_above_max_length",
        id="integrations-many",
    ),
    pytest.param(
        "method",
        {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 10_001}}},
        400,
        "method.supervised.hyperparameters.n_epochs",
        "integer_above_max_value",
        id="supervised-epochs",
    ),
    pytest.param(
        "method",
        {"type": "supervised", "supervised": {"hyperparameters": {"beta": 1}}},
        400,
        "method.supervised.hyperparameters.beta",
        "unknown_parameter",
        id="supervised-beta",
    ),
    pytest.param(
        "method",
        {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0}}},
        400,
        "method.dpo.hyperparameters.beta",
        "decimal_below_min_value",
        id="dpo-beta-low",
    ),
    pytest.param(
        "method",
        {"type": "dpo", "dpo": {"hyperparameters": {"beta": 2.5}}},
        400,
        "method.dpo.hyperparameters.beta",
        "decimal_above_max_value",
        id="dpo-beta-high",
    ),
    pytest.param("method", "x", 400, "method", "invalid_type", id="method-text"),
    pytest.param("method", {}, 400, "method.type", "missing_required_parameter", id="no-type"),
    pytest.param("method", {"type": "ppo"}, 400, "method.type", "invalid_value", id="unknown-method"),
    pytest.param(
        "method",
        {"type": "reinforcement"},
        400,
        "method.reinforcement",
        "missing_required_parameter",
        id="no-block",
    ),
    pytest.param(
        "method.reinforcement.grader",
        None,
        400,
        "method.reinforcement.grader",
        "invalid_type",
        id="no-grader",
    ),
    pytest.param(
        "method.reinforcement.grader",
        {"type": "magic"},
        400,
        "method.reinforcement.grader.type",
        None,
        id="unknown-grader",
    ),
    pytest.param(
        "method.reinforcement.grader",
        {"type": "string_check", "operation": "eq", "input": "x"},
        400,
        "method.reinforcement.grader.reference",
        "missing_required_parameter",
        id="grader-field",
    ),
    pytest.param(
        "method.reinforcement.response_format",
        {"type": "xml"},
        400,
        "method.reinforcement.response_format.type",
        "invalid_value",
        id="response-format",
    ),
    pytest.param(
        "method.reinforcement.response_format",
        {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "magic"}}},
        400,
        "method.reinforcement.response_format.json_schema.schema",
        "invalid_json_schema",
        id="response-format-schema",
    ),
    pytest.param(
        "method.reinforcement.response_format",
        "json_object",
        400,
        "method.reinforcement.response_format",
        "invalid_type",
        id="response-format-text",
    ),
    pytest.param(
        "method.reinforcement.response_format",
        {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}},
        400,
        "method.reinforcement.response_format.json_schema.name",
        "invalid_value",
        id="response-format-name",
    ),
    pytest.param(
        "method.reinforcement.x", 1, 400, "method.reinforcement.x", "unknown_parameter", id="block-key"
    ),
    pytest.param(
        f"{HYPER}.n_epochs", 0, 400, f"{HYPER}.n_epochs", "integer_below_min_value", id="epochs-low"
    ),
    pytest.param(
        f"{HYPER}.n_epochs", 10_001, 400, f"{HYPER}.n_epochs", "integer_above_max_value", id="epochs-high"
    ),
    *(
        pytest.param(
            HYPER,
            {"base_precision": precision, **beside},
            400,
            f"{HYPER}.base_precision",
            "unsupported_parameter",
            id=f"{precision}-beside-{'-'.join(beside)}",
        )
        for precision, beside in (("nf4", {"adapter": "full"}), ("int8", {"sharding": "fsdp"}))
    ),
    pytest.param(
        f"{HYPER}.base_precision", "int4", 400, f"{HYPER}.base_precision", "invalid_value", id="int4"
    ),
    pytest.param(f"{HYPER}.n_epochs", "all", 400, f"{HYPER}.n_epochs", "invalid_value", id="epochs-text"),
    pytest.param(f"{HYPER}.n_epochs", 1.5, 400, f"{HYPER}.n_epochs", "invalid_type", id="epochs-decimal"),
    pytest.param(
        f"{HYPER}.batch_size", 257, 400, f"{HYPER}.batch_size", "integer_above_max_value", id="batch"
    ),
    pytest.param(
        f"{HYPER}.compute_multiplier",
        11,
        400,
        f"{HYPER}.compute_multiplier",
        "decimal_above_max_value",
        id="compute",
    ),
    pytest.param(
        f"{HYPER}.learning_rate_multiplier",
        0,
        400,
        f"{HYPER}.learning_rate_multiplier",
        "decimal_below_min_value",
        id="rate",
    ),
    pytest.param(
        f"{HYPER}.reasoning_effort", "max", 400, f"{HYPER}.reasoning_effort", "invalid_value", id="effort"
    ),
    pytest.param(f"{HYPER}.algorithm", "magic", 400, f"{HYPER}.algorithm", "invalid_value", id="algorithm"),
    pytest.param(f"{HYPER}.group_size", 1, 400, f"{HYPER}.group_size", "integer_below_min_value", id="group"),
    pytest.param(f"{HYPER}.epochs", 1, 400, f"{HYPER}.epochs", "unknown_parameter", id="hyperparameter-key"),
    pytest.param(
        f"{HYPER}.clip_low", 1.5, 400, f"{HYPER}.clip_low", "decimal_above_max_value", id="clip-low"
    ),
    pytest.param(
        f"{HYPER}.temperature",
        1e-320,
        400,
        f"{HYPER}.temperature",
        "decimal_below_min_value",
        id="temperature",
    ),
    pytest.param(
        f"{HYPER}.eval_temperature",
        1e-320,
        400,
        f"{HYPER}.eval_temperature",
        "invalid_value",
        id="eval-temperature",
    ),
    pytest.param(
        f"{HYPER}.learning_rate_multiplier",
        1e-320,
        400,
        f"{HYPER}.learning_rate_multiplier",
        "decimal_below_min_value",
        id="rate-tiny",
    ),
    pytest.param(
        f"{HYPER}.validation_split",
        0.2,
        400,
        f"{HYPER}.validation_split",
        "invalid_value",
        id="split-beside-a-file",
    ),
    pytest.param(f"{HYPER}.dtype", "float16", 400, f"{HYPER}.dtype", "invalid_value", id="dtype"),
    pytest.param(f"{HYPER}.mask_truncated", 1, 400, f"{HYPER}.mask_truncated", "invalid_type", id="flag"),
    pytest.param(f"{HYPER}.stop", ["x"] * 5, 400, f"{HYPER}.stop", "array_above_max_length", id="stops"),
    pytest.param(f"{HYPER}.stop", [""], 400, f"{HYPER}.stop[0]", "string_below_min_length", id="stop-empty"),
    pytest.param("resources", {}, 400, "resources", "invalid_value", id="resources-neither"),
    pytest.param(
        "resources", {"gpus": 1, "processes": 1}, 400, "resources", "invalid_value", id="resources-both"
    ),
    pytest.param("resources", 2, 400, "resources", "invalid_type", id="resources-number"),
    pytest.param("resources", {"tpus": 1}, 400, "resources.tpus", "unknown_parameter", id="resources-key"),
    pytest.param("resources", {"gpus": 0}, 400, "resources.gpus", "integer_below_min_value", id="gpus-low"),
    pytest.param("resources", {"gpus": 65}, 400, "resources.gpus", "integer_above_max_value", id="gpus-high"),
    pytest.param(f"{HYPER}.sharding", "fsdp", 400, f"{HYPER}.sharding", "invalid_value", id="sharding-alone"),
    pytest.param("resources", {"gpus": "2"}, 400, "resources.gpus", "invalid_type", id="gpus-text"),
    pytest.param(
        "resources", {"processes": 64}, 400, "resources.processes", "integer_above_max_value", id="processes"
    ),
]


def test_a_bad_request_names_the_field(
    http: httpx.Client,
    subtests: pytest.Subtests,
    db: Session,
    job_body: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allow_processes(monkeypatch, 2)
    for case in REFUSED:
        path, value, status, param, code = case.values
        with subtests.test(case.id):
            response = http.post("/v1/fine_tuning/jobs", json=changed(job_body, path, value))
            assert response.status_code == status, response.text
            error = error_of(response)
            assert error["param"] == param
            assert error["type"] == "invalid_request_error"
            if code is not None or status == 404:
                assert error["code"] == code
            assert db.query(Job).count() == 0


def test_missing_fields_are_named(http: httpx.Client) -> None:
    error = error_of(http.post("/v1/fine_tuning/jobs", json={}))
    assert error == {
        "message": "Missing required parameter: 'model'. Also: Missing required parameter: 'training_file'.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "missing_required_parameter",
        "errors": [
            {
                "message": f"Missing required parameter: '{name}'.",
                "param": name,
                "code": "missing_required_parameter",
            }
            for name in ("model", "training_file")
        ],
    }


def test_files_of_another_purpose_and_deleted_ones_are_refused(
    http: httpx.Client, db: Session, tenant: Tenant, job_body: dict[str, Any]
) -> None:
    other = make_file(db, tenant.project_id, purpose="user_data")
    db.commit()
    error = error_of(http.post("/v1/fine_tuning/jobs", json=job_body | {"training_file": other.id}))
    assert (error["param"], error["code"]) == ("training_file", "invalid_value")
    assert http.delete(f"/v1/files/{job_body['validation_file']}").status_code == 200
    response = http.post("/v1/fine_tuning/jobs", json=job_body)
    assert (response.status_code, error_of(response)["param"]) == (404, "validation_file")


def test_a_canary_file_is_shown_and_stays_while_the_job_needs_it(
    http: httpx.Client, db: Session, tenant: Tenant, job_body: dict[str, Any]
) -> None:
    assert "canary_file" not in http.post("/v1/fine_tuning/jobs", json=job_body).json()
    canary = make_file(db, tenant.project_id, b'{"text": "One."}')
    db.commit()
    job = http.post("/v1/fine_tuning/jobs", json=job_body | {"canary_file": canary.id}).json()
    assert job["canary_file"] == canary.id
    refused = http.delete(f"/v1/files/{canary.id}")
    assert (refused.status_code, job["id"] in error_of(refused)["message"]) == (400, True)


def test_a_gold_grader_is_kept_with_its_defaults_and_read_like_the_grader(
    http: httpx.Client, job_body: dict[str, Any]
) -> None:
    block = job_body["method"]["reinforcement"]
    assert (
        "gold_grader"
        not in http.post("/v1/fine_tuning/jobs", json=job_body).json()["method"]["reinforcement"]
    )
    asked = {
        **job_body,
        "method": {**job_body["method"], "reinforcement": {**block, "gold_grader": block["grader"]}},
    }
    made = http.post("/v1/fine_tuning/jobs", json=asked).json()["method"]["reinforcement"]
    assert made["gold_grader"] == made["grader"]
    asked["method"]["reinforcement"]["gold_grader"] = {"type": "string_check", "name": "bare"}
    refused = http.post("/v1/fine_tuning/jobs", json=asked)
    assert refused.status_code == 400
    assert error_of(refused)["param"].startswith("method.reinforcement.gold_grader.")


def test_nulls_ask_for_defaults(client: openai.OpenAI, job_body: dict[str, Any]) -> None:
    nulls = dict.fromkeys((*AUTO, "group_size", "beta"))
    job_body = changed(job_body, HYPER, nulls)
    job_body["method"]["reinforcement"]["response_format"] = None
    job = client.fine_tuning.jobs.create(**job_body)
    assert job.method is not None
    assert job.method.reinforcement is not None
    assert job.method.reinforcement.hyperparameters is not None
    assert job.method.reinforcement.hyperparameters.model_dump() == AUTO


def test_a_response_format_that_constrains_nothing_is_kept(
    http: httpx.Client, job_body: dict[str, Any]
) -> None:
    job_body["method"]["reinforcement"]["response_format"] = {"type": "text"}
    job = http.post("/v1/fine_tuning/jobs", json=job_body).json()
    assert job["method"]["reinforcement"]["response_format"] == {"type": "text"}


def test_the_deprecated_hyperparameters_are_read_only_without_a_method(
    http: httpx.Client, job_body: dict[str, Any]
) -> None:
    assert http.post("/v1/fine_tuning/jobs", json=job_body | {"hyperparameters": 7}).status_code == 200
    del job_body["method"]
    error = error_of(http.post("/v1/fine_tuning/jobs", json=job_body | {"hyperparameters": {"n_epochs": 0}}))
    assert (error["param"], error["code"]) == ("hyperparameters.n_epochs", "integer_below_min_value")
    job = http.post("/v1/fine_tuning/jobs", json=job_body | {"hyperparameters": {"n_epochs": 1}}).json()
    assert job["hyperparameters"]["n_epochs"] == 1


NUMBERS = {
    "learning_rate_multiplier": "a number or 'auto'.",
    "n_epochs": "a number or 'auto'.",
    "compute_multiplier": "a number or 'auto'.",
    "eval_interval": "a number or 'auto'.",
    "micro_batch_tokens": "a number or 'auto'.",
    "gradient_checkpointing": "true, false or 'auto'.",
    "beta": "a number, but got a string",
    "group_size": "an integer, but got a string",
}


def test_a_number_as_text_is_refused_with_what_it_may_be(
    http: httpx.Client, job_body: dict[str, Any], subtests: pytest.Subtests
) -> None:
    def refused(name: str, value: Any) -> dict[str, Any]:
        asked = changed(job_body, f"{HYPER}.{name}", value)
        return error_of(http.post("/v1/fine_tuning/jobs", json=asked))

    for name, expected in NUMBERS.items():
        with subtests.test(name):
            for value in ("2", "automatic", "", "1e-1"):
                error = refused(name, value)
                assert error["param"] == f"{HYPER}.{name}"
                assert f"expected {expected}" in error["message"]
            error = refused(name, [])
            assert error["code"] == "invalid_type"
            assert ("or 'auto', but got an array" in error["message"]) == ("'auto'" in expected)


def test_an_unknown_model_is_told_with_those_there_are(
    http: httpx.Client, db: Session, tenant: Tenant, job_body: dict[str, Any]
) -> None:
    models.add_alias(db, "gpt-4.1-nano", "cherry-nano")
    make_tuned_model(db, make_job(db, make_tenant(db, "other").project_id), "ft:cherry-nano:other:x:AbCd1234")
    mine = make_tuned_model(db, make_job(db, tenant.project_id), "ft:cherry-nano:acme:x:AbCd1234")
    db.commit()
    asked = http.post("/v1/fine_tuning/jobs", json=job_body | {"model": "gpt-9"})
    for response in (asked, http.get("/v1/models/gpt-9")):
        message = error_of(response)["message"]
        assert f"There are: cherry-nano, gpt-4.1-nano, {mine.name}." in message
        assert "`cherry models alias add NAME MODEL`" in message
        assert ":other:" not in message


def test_what_is_below_a_response_format_is_not_beside_its_type(
    http: httpx.Client, job_body: dict[str, Any]
) -> None:
    flat = {"type": "json_schema", "name": "answer", "strict": True, "schema": {"type": "object"}}
    error = error_of(http.post("/v1/fine_tuning/jobs", json=changed(job_body, FORMAT, flat)))
    assert (error["param"], error["code"]) == (f"{FORMAT}.json_schema", "missing_required_parameter")
    assert "'name', 'strict', 'schema' must stand below it, not beside 'type'" in error["message"]
    bare = {"type": "object", "properties": {}}
    error = error_of(http.post("/v1/fine_tuning/jobs", json=changed(job_body, FORMAT, bare)))
    assert "A schema itself goes below 'json_schema'" in error["message"]


def test_messages_name_a_file_by_id_and_name(
    http: httpx.Client, db: Session, tenant: Tenant, job_body: dict[str, Any]
) -> None:
    http.post("/v1/fine_tuning/jobs", json=job_body).raise_for_status()
    used = error_of(http.delete(f"/v1/files/{job_body['training_file']}"))["message"]
    assert used.startswith(f"File {job_body['training_file']} (train.jsonl) is used by the unfinished job")
    other = make_file(db, tenant.project_id, purpose="user_data", name="notes.txt")
    db.commit()
    asked = http.post("/v1/fine_tuning/jobs", json=job_body | {"training_file": other.id})
    assert error_of(asked)["message"].startswith(f"File {other.id} (notes.txt) has the purpose 'user_data'")
