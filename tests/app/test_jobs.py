"""/v1/fine_tuning/jobs: create, read, list and cancel."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy.orm import Session

from app import queue
from app.jobs.models import ACTIVE, TERMINAL, Job
from app.models import service as models
from app.settings import get_settings
from tests.app import openai_schema
from tests.factories import (
    AUTO,
    GRADER,
    STEP_VALUES,
    Tenant,
    make_checkpoint,
    make_file,
    make_job,
    make_metrics,
    make_model,
    make_tenant,
    make_tuned_model,
)


@pytest.fixture
def body(db: Session, tenant: Tenant) -> dict[str, Any]:
    """A request that is right."""
    train, valid = make_file(db, tenant.project_id), make_file(db, tenant.project_id)
    db.commit()
    return {
        "model": "cherry-nano",
        "training_file": train.id,
        "validation_file": valid.id,
        "method": {"type": "reinforcement", "reinforcement": {"grader": dict(GRADER)}},
    }


def changed(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The body with one thing set; dots lead down."""
    head, _, rest = path.partition(".")
    return {**body, head: changed(body.get(head, {}), rest, value) if rest else value}


def error_of(response: httpx.Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


HYPER = "method.reinforcement.hyperparameters"


def test_a_job_is_created_as_asked(client: openai.OpenAI, body: dict[str, Any]) -> None:
    hyperparameters = {
        "n_epochs": 2,
        "compute_multiplier": 1.0,
        "reasoning_effort": "medium",
        "group_size": 4,
    }
    body = changed(body, HYPER, hyperparameters)
    job = client.fine_tuning.jobs.create(**body, suffix="triage", seed=42, metadata={"team": "a"})
    assert (job.status, job.seed, job.model, job.metadata) == (
        "validating_files",
        42,
        "cherry-nano",
        {"team": "a"},
    )
    assert (job.error, job.fine_tuned_model, job.finished_at, job.trained_tokens) == (None, None, None, None)
    assert (job.training_file, job.validation_file) == (body["training_file"], body["validation_file"])
    assert job.method is not None
    assert job.method.reinforcement is not None
    assert job.method.supervised is None
    shown = job.method.reinforcement.hyperparameters
    assert shown is not None
    assert shown.model_dump() == {**AUTO, **hyperparameters}
    assert job.method.reinforcement.grader.model_dump() == GRADER
    assert client.fine_tuning.jobs.retrieve(job.id) == job

    events = client.fine_tuning.jobs.list_events(job.id).data
    files = f"training file: {job.training_file} and validation file: {job.validation_file}"
    assert [event.message for event in events] == [
        f"Validating {files}",
        f"Created fine-tuning job: {job.id}",
    ]


def test_a_response_format_is_shown_as_it_came(client: openai.OpenAI, body: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    asked = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    job = client.fine_tuning.jobs.create(**changed(body, "method.reinforcement.response_format", asked))
    assert job.method is not None
    assert job.method.reinforcement is not None
    assert job.method.reinforcement.model_dump()["response_format"] == asked
    plain = client.fine_tuning.jobs.create(**changed(body, "method.reinforcement.response_format", None))
    assert "response_format" not in plain.method.reinforcement.model_dump()  # type: ignore[union-attr]


def test_defaults_are_filled_in(client: openai.OpenAI, body: dict[str, Any]) -> None:
    del body["validation_file"], body["method"]["reinforcement"]["grader"]["name"]
    job = client.fine_tuning.jobs.create(**body, suffix=None, integrations=[], metadata=None)
    assert job.seed is not None
    assert job.validation_file is None
    assert job.method is not None
    assert job.method.reinforcement is not None
    assert job.method.reinforcement.grader.name.startswith("grader-")
    events = client.fine_tuning.jobs.list_events(job.id).data
    assert events[0].message == f"Validating training file: {job.training_file}"


def test_blocks_of_other_methods_are_not_read(http: httpx.Client, body: dict[str, Any]) -> None:
    body = changed(body, "method.supervised", {"anything": 1}) | {"hyperparameters": {"n_epochs": 3}}
    job = http.post("/v1/fine_tuning/jobs", json=body).json()
    assert list(job["method"]) == ["type", "reinforcement"]
    assert job["hyperparameters"] == {}


def test_resolved_numbers_take_the_place_of_auto(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    from app.jobs.defaults import resolve_config

    job = make_job(db, tenant.project_id)
    facts: dict[str, Any] = {
        "hidden_size": 128,
        "context": 512,
        "longest_prompt": 100,
        "n_train": 20,
        "n_valid": 5,
    }
    config = resolve_config(job.method, model="cherry-nano", model_path="x", seed=7, **facts)
    job.config = config.model_dump(mode="json")
    db.commit()
    shown = http.get(f"/v1/fine_tuning/jobs/{job.id}").json()
    openai_schema.check(shown, "FineTuningJob")
    resolved = shown["method"]["reinforcement"]["hyperparameters"]
    assert "auto" not in resolved.values()
    assert (resolved["batch_size"], resolved["n_epochs"], resolved["group_size"]) == (8, 14, 8)
    assert (resolved["learning_rate_multiplier"], resolved["reasoning_effort"]) == (1.0, "default")


def test_every_status_is_valid_against_openais_schema(
    http: httpx.Client, client: openai.OpenAI, db: Session, tenant: Tenant
) -> None:
    for status in (*ACTIVE, *TERMINAL):
        if status == "paused":  # not in the schema: tests/app/test_pause.py
            continue
        error = {"code": "invalid_training_file", "message": "Line 3", "param": "training_file"}
        job = make_job(db, tenant.project_id, status=status, error=error if status == "failed" else None)
        db.commit()
        openai_schema.check(http.get(f"/v1/fine_tuning/jobs/{job.id}").json(), "FineTuningJob")
        openai_schema.check(http.get("/v1/fine_tuning/jobs").json(), "ListPaginatedFineTuningJobsResponse")
        assert client.fine_tuning.jobs.retrieve(job.id).status == status


REFUSED = [
    pytest.param("model", "gpt-9", 400, "model", "model_not_available", id="unknown-model"),
    pytest.param("model", 7, 400, "model", "invalid_type", id="model-number"),
    pytest.param("model", "m" * 300, 400, "model", "string_above_max_length", id="model-long"),
    pytest.param("training_file", "file-none", 404, "training_file", None, id="unknown-file"),
    pytest.param("validation_file", "file-none", 404, "validation_file", None, id="unknown-validation-file"),
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
        [{"type": "mlflow", "wandb": {"project": "p"}}],
        400,
        "integrations[0].type",
        "invalid_value",
        id="integration-type",
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
        {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 51}}},
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
        f"{HYPER}.n_epochs", 51, 400, f"{HYPER}.n_epochs", "integer_above_max_value", id="epochs-high"
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
    pytest.param("resources", {"gpus": "2"}, 400, "resources.gpus", "invalid_type", id="gpus-text"),
    pytest.param(
        "resources", {"processes": 64}, 400, "resources.processes", "integer_above_max_value", id="processes"
    ),
]


def test_a_bad_request_names_the_field(
    http: httpx.Client,
    subtests: pytest.Subtests,
    db: Session,
    body: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allow_processes(monkeypatch, 2)
    for case in REFUSED:
        path, value, status, param, code = case.values
        with subtests.test(case.id):
            response = http.post("/v1/fine_tuning/jobs", json=changed(body, path, value))
            assert response.status_code == status, response.text
            error = error_of(response)
            assert error["param"] == param
            assert error["type"] == "invalid_request_error"
            if code is not None or status == 404:
                assert error["code"] == code
            assert db.query(Job).count() == 0


def allow_processes(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setenv("CHERRY_MAX_PROCESSES", str(most))
    get_settings.cache_clear()


@pytest.mark.parametrize("resources", [{"gpus": 8}, {"processes": 2}])
def test_a_job_keeps_the_resources_it_asked_for(
    client: openai.OpenAI, body: dict[str, Any], resources: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_processes(monkeypatch, 2)
    job = client.fine_tuning.jobs.create(**body, extra_body={"resources": resources})
    assert job.model_extra is not None
    assert job.model_extra["resources"] == resources
    again = client.fine_tuning.jobs.retrieve(job.id)
    assert again.model_extra is not None
    assert again.model_extra["resources"] == resources


def test_a_job_that_asked_for_no_resources_shows_none(http: httpx.Client, body: dict[str, Any]) -> None:
    assert "resources" not in http.post("/v1/fine_tuning/jobs", json=body).json()
    assert "resources" not in http.get("/v1/fine_tuning/jobs").json()["data"][0]


def test_resources_are_marked_as_ours_in_the_openapi_document(http: httpx.Client) -> None:
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    for name in ("JobCreate", "JobOut"):
        assert schemas[name]["properties"]["resources"]["x-cherry"] is True


def test_missing_fields_are_named(http: httpx.Client) -> None:
    error = error_of(http.post("/v1/fine_tuning/jobs", json={}))
    assert error == {
        "message": "Missing required parameter: 'model'.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "missing_required_parameter",
    }


def test_files_of_another_purpose_and_deleted_ones_are_refused(
    http: httpx.Client, db: Session, tenant: Tenant, body: dict[str, Any]
) -> None:
    other = make_file(db, tenant.project_id, purpose="user_data")
    db.commit()
    error = error_of(http.post("/v1/fine_tuning/jobs", json=body | {"training_file": other.id}))
    assert (error["param"], error["code"]) == ("training_file", "invalid_value")
    assert http.delete(f"/v1/files/{body['validation_file']}").status_code == 200
    response = http.post("/v1/fine_tuning/jobs", json=body)
    assert (response.status_code, error_of(response)["param"]) == (404, "validation_file")


def test_a_tuned_model_and_a_kept_checkpoint_can_be_tuned_on(
    client: openai.OpenAI, db: Session, tenant: Tenant, body: dict[str, Any]
) -> None:
    source = make_job(db, tenant.project_id, status="succeeded")
    model, kept = make_tuned_model(db, source), make_checkpoint(db, source, 4)
    db.commit()
    for name in (model.name, kept.model_name):
        job = client.fine_tuning.jobs.create(**body | {"model": name})
        assert job.model == name


def test_checkpoints_that_are_dropped_or_anothers_cannot_be_tuned_on(
    http: httpx.Client, db: Session, tenant: Tenant, body: dict[str, Any]
) -> None:
    other = make_job(db, make_tenant(db, "other").project_id, status="succeeded")
    mine = make_job(db, tenant.project_id, status="succeeded")
    names = [make_checkpoint(db, other, 4).model_name]
    names.append(make_checkpoint(db, mine, 4, storage_key=None).model_name)
    db.commit()
    for name in names:
        error = error_of(http.post("/v1/fine_tuning/jobs", json=body | {"model": name}))
        assert (error["param"], error["code"]) == ("model", "model_not_available")
        assert http.get(f"/v1/models/{name}").status_code == 404


def test_a_checkpoint_is_a_model_that_no_list_shows_and_nobody_deletes(
    client: openai.OpenAI, db: Session, tenant: Tenant
) -> None:
    kept = make_checkpoint(db, make_job(db, tenant.project_id, status="succeeded"), 4)
    db.commit()
    assert client.models.retrieve(kept.model_name).owned_by == tenant.organization_id
    assert kept.model_name not in [model.id for model in client.models.list()]
    with pytest.raises(openai.PermissionDeniedError, match="stays with its job"):
        client.models.delete(kept.model_name)


def test_an_alias_stands_for_its_base_model(
    client: openai.OpenAI, db: Session, tenant: Tenant, body: dict[str, Any]
) -> None:
    models.add_alias(db, "o4-mini-2025-04-16", "cherry-nano")
    db.commit()
    job = client.fine_tuning.jobs.create(**body | {"model": "o4-mini-2025-04-16"})
    assert job.model == "cherry-nano"
    assert client.models.retrieve("o4-mini-2025-04-16").id == "cherry-nano"
    with pytest.raises(openai.PermissionDeniedError, match="alias"):
        client.models.delete("o4-mini-2025-04-16")


def test_integrations_are_kept_and_shown_as_given(client: openai.OpenAI, body: dict[str, Any]) -> None:
    given = {"type": "wandb", "wandb": {"project": "p", "name": None, "tags": ["a"]}}
    job = client.fine_tuning.jobs.create(**body, integrations=[given])
    assert job.integrations is not None
    assert job.integrations[0].wandb.to_dict() == {"project": "p", "tags": ["a"]}


def test_nulls_ask_for_defaults(client: openai.OpenAI, body: dict[str, Any]) -> None:
    nulls = dict.fromkeys((*AUTO, "group_size", "beta"))
    body = changed(body, HYPER, nulls)
    body["method"]["reinforcement"]["response_format"] = None
    job = client.fine_tuning.jobs.create(**body)
    assert job.method is not None
    assert job.method.reinforcement is not None
    assert job.method.reinforcement.hyperparameters is not None
    assert job.method.reinforcement.hyperparameters.model_dump() == AUTO


def test_a_response_format_that_constrains_nothing_is_kept(http: httpx.Client, body: dict[str, Any]) -> None:
    body["method"]["reinforcement"]["response_format"] = {"type": "text"}
    job = http.post("/v1/fine_tuning/jobs", json=body).json()
    assert job["method"]["reinforcement"]["response_format"] == {"type": "text"}


def test_the_deprecated_hyperparameters_are_read_only_without_a_method(
    http: httpx.Client, body: dict[str, Any]
) -> None:
    assert http.post("/v1/fine_tuning/jobs", json=body | {"hyperparameters": 7}).status_code == 200
    del body["method"]
    error = error_of(http.post("/v1/fine_tuning/jobs", json=body | {"hyperparameters": {"n_epochs": 0}}))
    assert (error["param"], error["code"]) == ("hyperparameters.n_epochs", "integer_below_min_value")
    job = http.post("/v1/fine_tuning/jobs", json=body | {"hyperparameters": {"n_epochs": 1}}).json()
    assert job["hyperparameters"]["n_epochs"] == 1


def test_what_a_job_has_used_is_shown(client: openai.OpenAI, db: Session, tenant: Tenant) -> None:
    usage = {"training_seconds": 1.5, "grader_tokens": {}}
    job = make_job(db, tenant.project_id, status="running", usage_metrics=usage)
    db.commit()
    shown = client.fine_tuning.jobs.retrieve(job.id).model_extra
    assert shown is not None
    assert shown["usage_metrics"] == usage


def test_two_requests_at_once_cannot_both_take_the_last_place(
    http: httpx.Client, db: Session, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.settings import get_settings

    monkeypatch.setenv("CHERRY_MAX_ACTIVE_JOBS", "1")
    get_settings.cache_clear()
    found: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: found.append(http.post("/v1/fine_tuning/jobs", json=body)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(response.status_code for response in found) == [200, 429, 429, 429]
    refused = next(response for response in found if response.status_code == 429)
    assert error_of(refused)["code"] == "daily_rate_limit_exceeded"
    assert refused.headers["x-should-retry"] == "false"


def test_the_worker_is_woken_only_after_the_commit(
    http: httpx.Client, db: Session, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(queue, "publish", lambda name: seen.append(db.query(Job).count()))
    http.post("/v1/fine_tuning/jobs", json=body)
    assert seen == [1]
    http.post("/v1/fine_tuning/jobs", json=body | {"model": "none"})
    assert seen == [1]


def test_a_waiting_job_is_cancelled_at_once_and_only_once(
    client: openai.OpenAI, db: Session, tenant: Tenant
) -> None:
    job = make_job(db, tenant.project_id, status="validating_files")
    db.commit()
    cancelled = client.fine_tuning.jobs.cancel(job.id)
    assert cancelled.status == "cancelled"
    assert cancelled.finished_at is not None
    assert client.fine_tuning.jobs.list_events(job.id).data[0].message == "The job was cancelled"
    with pytest.raises(openai.BadRequestError, match="already cancelled"):
        client.fine_tuning.jobs.cancel(job.id)


def test_cancelling_a_running_job_asks_its_worker(client: openai.OpenAI, db: Session, tenant: Tenant) -> None:
    lease = datetime.now(UTC) + timedelta(seconds=30)
    job = make_job(db, tenant.project_id, status="running", lease_expires_at=lease, lease_owner="worker")
    db.commit()
    assert client.fine_tuning.jobs.cancel(job.id).status == "running"
    assert client.fine_tuning.jobs.cancel(job.id).status == "running"
    db.refresh(job)
    assert job.cancel_requested_at is not None


def test_lists_are_filtered_by_every_pair_of_metadata(
    http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    pairs: dict[str, dict[str, str] | None] = {
        "both": {"a": "1", "b": "2"},
        "one": {"a": "1"},
        "blank": {"a": ""},
        "none": None,
        "empty": {},
    }
    ids = {name: make_job(db, tenant.project_id, meta=meta).id for name, meta in pairs.items()}
    db.commit()

    def found(query: str) -> set[str]:
        jobs = http.get(f"/v1/fine_tuning/jobs?{query}").json()["data"]
        return {name for name, job_id in ids.items() if job_id in [job["id"] for job in jobs]}

    assert found("metadata[a]=1") == {"both", "one"}
    assert found("metadata%5Ba%5D=1&metadata%5Bb%5D=2") == {"both"}
    assert found("metadata[a]=") == {"blank"}
    assert found("metadata[c]=1") == set()
    assert found("metadata=null") == {"none", "empty"}
    assert found("") == set(pairs)


def test_the_client_walks_all_pages_newest_first(client: openai.OpenAI, db: Session, tenant: Tenant) -> None:
    ids = []
    for _ in range(5):
        ids.append(make_job(db, tenant.project_id).id)
        db.commit()
    assert [job.id for job in client.fine_tuning.jobs.list(limit=2)] == ids[::-1]
    assert [job.id for job in client.fine_tuning.jobs.list(limit=2, metadata={"x": "y"})] == []


def test_events_are_paged_newest_first(client: openai.OpenAI, db: Session, tenant: Tenant) -> None:
    from app.events import service as events

    job = make_job(db, tenant.project_id)
    for number in range(5):
        events.append(db, job.id, f"e{number}", f"event {number}", data={"step": 1} if number == 2 else None)
    db.commit()
    walked = list(client.fine_tuning.jobs.list_events(job.id, limit=2))
    assert [event.message for event in walked] == [f"event {number}" for number in (4, 3, 2, 1, 0)]
    assert [event.type for event in walked] == ["message", "message", "metrics", "message", "message"]
    assert walked[0].data == {}
    assert len(client.fine_tuning.jobs.list_events(job.id, limit=1000).data) == 5


def test_only_kept_checkpoints_are_listed_highest_step_first(
    client: openai.OpenAI, http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    job = make_job(db, tenant.project_id, status="running")
    kept = [make_checkpoint(db, job, step).id for step in (1, 2, 3)]
    dropped = make_checkpoint(db, job, 4, storage_key=None)
    make_metrics(db, job, 3)
    db.commit()
    walked = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=2))
    assert [each.id for each in walked] == kept[::-1]
    after_dropped = client.fine_tuning.jobs.checkpoints.list(job.id, after=dropped.id).data
    assert [each.id for each in after_dropped] == kept[::-1]
    metrics = walked[0].metrics.model_dump(exclude_none=True)
    assert metrics["train_mean_reward"] == metrics["train_reward_mean"] == STEP_VALUES["reward/mean"]
    assert metrics["full_valid_mean_reward"] == metrics["valid_reward_mean"] == 0.68
    assert (metrics["step"], metrics["kl"], metrics["kl_stderr"]) == (3, 0.01, 0.002)
    listed = http.get(f"/v1/fine_tuning/jobs/{job.id}/checkpoints").json()
    openai_schema.check(listed, "ListFineTuningJobCheckpointsResponse")
    assert None not in listed["data"][0]["metrics"].values()


def test_odd_but_harmless_queries_are_answered(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id)
    db.commit()
    for what in ("", "/events", "/checkpoints"):
        path = f"/v1/fine_tuning/jobs{f'/{job.id}' if what else ''}{what}"
        assert http.get(f"{path}?limit=0").json()["data"] == []
        assert http.get(f"{path}?after=none&limit=1000").status_code == 200
        error = error_of(http.get(f"{path}?limit=-1"))
        assert (error["param"], error["code"]) == ("limit", "integer_below_min_value")


def test_models_are_base_models_and_the_projects_own(
    client: openai.OpenAI, http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    other = make_tenant(db, "other")
    mine = make_tuned_model(db, make_job(db, tenant.project_id, status="succeeded"))
    theirs = make_job(db, other.project_id, status="succeeded")
    make_tuned_model(db, theirs, name="ft:cherry-nano:other::12345678")
    make_model(db, "second")
    db.commit()
    listed = [(model.id, model.owned_by) for model in client.models.list()]
    assert listed == [
        ("cherry-nano", "system"),
        ("second", "system"),
        (mine.name, tenant.organization_id),
    ]
    openai_schema.check(http.get(f"/v1/models/{mine.name}").json(), "Model")
    assert client.models.retrieve(mine.name).id == mine.name
    assert client.models.delete(mine.name).deleted
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve(mine.name)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.PermissionDeniedError):
        client.models.delete("cherry-nano")
