"""/v1/fine_tuning/jobs: create, read and cancel."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy.orm import Session

from app.db import after_commit, unit_of_work
from app.jobs.models import ACTIVE, TERMINAL, Job
from app.queue import wake_validator
from app.settings import get_settings
from methods.hyperparameters import Facts
from methods.resolve import resolve_train
from tests.app.answers import error_of
from tests.app.http import openai_schema
from tests.app.jobs.job_requests import HYPER, allow_processes, changed
from tests.e2e.service import wait_for
from tests.factories import (
    AUTO,
    GRADER,
    Tenant,
    make_job,
)


def test_a_job_is_created_as_asked(client: openai.OpenAI, job_body: dict[str, Any]) -> None:
    hyperparameters = {
        "n_epochs": 2,
        "compute_multiplier": 1.0,
        "reasoning_effort": "medium",
        "group_size": 4,
    }
    job_body = changed(job_body, HYPER, hyperparameters)
    job = client.fine_tuning.jobs.create(**job_body, suffix="triage", seed=42, metadata={"team": "a"})
    assert (job.status, job.seed, job.model, job.metadata) == (
        "validating_files",
        42,
        "cherry-nano",
        {"team": "a"},
    )
    assert (job.error, job.fine_tuned_model, job.finished_at, job.trained_tokens) == (None, None, None, None)
    assert (job.training_file, job.validation_file) == (
        job_body["training_file"],
        job_body["validation_file"],
    )
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


def test_a_response_format_is_shown_as_it_came(client: openai.OpenAI, job_body: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    asked = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    job = client.fine_tuning.jobs.create(**changed(job_body, "method.reinforcement.response_format", asked))
    assert job.method is not None
    assert job.method.reinforcement is not None
    assert job.method.reinforcement.model_dump()["response_format"] == asked
    plain = client.fine_tuning.jobs.create(**changed(job_body, "method.reinforcement.response_format", None))
    assert "response_format" not in plain.method.reinforcement.model_dump()  # type: ignore[union-attr]


def test_defaults_are_filled_in(client: openai.OpenAI, job_body: dict[str, Any]) -> None:
    del job_body["validation_file"], job_body["method"]["reinforcement"]["grader"]["name"]
    job = client.fine_tuning.jobs.create(**job_body, suffix=None, integrations=[], metadata=None)
    assert job.seed is not None
    assert job.validation_file is None
    assert job.method is not None
    assert job.method.reinforcement is not None
    assert job.method.reinforcement.grader.name.startswith("grader-")
    events = client.fine_tuning.jobs.list_events(job.id).data
    assert events[0].message == f"Validating training file: {job.training_file}"


def test_blocks_of_other_methods_are_not_read(http: httpx.Client, job_body: dict[str, Any]) -> None:
    job_body = changed(job_body, "method.supervised", {"anything": 1}) | {"hyperparameters": {"n_epochs": 3}}
    job = http.post("/v1/fine_tuning/jobs", json=job_body).json()
    assert list(job["method"]) == ["type", "reinforcement"]
    assert job["hyperparameters"] == {}


def test_resolved_numbers_take_the_place_of_auto(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id)
    facts = Facts(hidden_size=128, context=512, longest_prompt=100, n_train=20, n_valid=5)
    config = resolve_train(job.method, facts, model="cherry-nano", model_path="x", seed=7)
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
        if status == "paused":  # not in the schema: tests/app/jobs/test_pause.py
            continue
        error = {"code": "invalid_training_file", "message": "Line 3", "param": "training_file"}
        job = make_job(db, tenant.project_id, status=status, error=error if status == "failed" else None)
        db.commit()
        openai_schema.check(http.get(f"/v1/fine_tuning/jobs/{job.id}").json(), "FineTuningJob")
        openai_schema.check(http.get("/v1/fine_tuning/jobs").json(), "ListPaginatedFineTuningJobsResponse")
        assert client.fine_tuning.jobs.retrieve(job.id).status == status


@pytest.mark.parametrize("resources", [{"gpus": 8}, {"processes": 2}])
def test_a_job_keeps_the_resources_it_asked_for(
    client: openai.OpenAI,
    job_body: dict[str, Any],
    resources: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allow_processes(monkeypatch, 2)
    job = client.fine_tuning.jobs.create(**job_body, extra_body={"resources": resources})
    assert job.model_extra is not None
    assert job.model_extra["resources"] == resources
    again = client.fine_tuning.jobs.retrieve(job.id)
    assert again.model_extra is not None
    assert again.model_extra["resources"] == resources


def test_more_gpus_than_the_service_may_give_are_refused(
    http: httpx.Client, job_body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for most, given in (("2", 2), ("auto", 0)):
        monkeypatch.setenv("CHERRY_MAX_GPUS", most)
        monkeypatch.setenv("CHERRY_GPUS", "0")
        get_settings.cache_clear()
        response = http.post("/v1/fine_tuning/jobs", json=job_body | {"resources": {"gpus": 64}})
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, "resources.gpus")
        assert error["code"] == "integer_above_max_value"
        assert f"this service allows at most {given}, but got 64" in error["message"]


def test_a_model_is_split_over_several_processes_alone(
    http: httpx.Client, job_body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_processes(monkeypatch, 2)
    job_body = changed(job_body, f"{HYPER}.sharding", "fsdp")
    for resources, status in (({"gpus": 1}, 400), ({"processes": 1}, 400), ({"processes": 2}, 200)):
        response = http.post("/v1/fine_tuning/jobs", json=job_body | {"resources": resources})
        assert response.status_code == status, response.text
        if status == 400:
            error = response.json()["error"]
            assert error["param"] == "method.reinforcement.hyperparameters.sharding"
            assert "this job has one" in error["message"]


def test_a_job_that_asked_for_no_resources_shows_none(http: httpx.Client, job_body: dict[str, Any]) -> None:
    assert "resources" not in http.post("/v1/fine_tuning/jobs", json=job_body).json()
    assert "resources" not in http.get("/v1/fine_tuning/jobs").json()["data"][0]


def test_resources_are_marked_as_ours_in_the_openapi_document(http: httpx.Client) -> None:
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    for name in ("JobCreate", "JobOut"):
        assert schemas[name]["properties"]["resources"]["x-cherry"] is True


def test_integrations_are_kept_and_shown_as_given(client: openai.OpenAI, job_body: dict[str, Any]) -> None:
    given = {"type": "wandb", "wandb": {"project": "p", "name": None, "tags": ["a"]}}
    job = client.fine_tuning.jobs.create(**job_body, integrations=[given])
    assert job.integrations is not None
    assert job.integrations[0].wandb.to_dict() == {"project": "p", "tags": ["a"]}


def test_integrations_that_openai_does_not_know_are_shown_apart(
    http: httpx.Client, job_body: dict[str, Any]
) -> None:
    wandb = {"type": "wandb", "wandb": {"project": "p"}}
    ours = [
        {"type": "tensorboard"},
        {"type": "mlflow", "mlflow": {"experiment": "e"}},
        {"type": "trackio", "trackio": {"project": "p", "name": "n"}},
    ]
    job = http.post("/v1/fine_tuning/jobs", json={**job_body, "integrations": [wandb, *ours]}).json()
    assert job["integrations"] == [wandb]
    assert job["other_integrations"] == ours
    plain = http.post("/v1/fine_tuning/jobs", json=job_body).json()
    assert "other_integrations" not in plain


def test_what_a_job_has_used_is_shown(client: openai.OpenAI, db: Session, tenant: Tenant) -> None:
    usage = {"training_seconds": 1.5, "grader_tokens": {}}
    job = make_job(db, tenant.project_id, status="running", usage_metrics=usage)
    db.commit()
    shown = client.fine_tuning.jobs.retrieve(job.id).model_extra
    assert shown is not None
    assert shown["usage_metrics"] == usage


def test_two_requests_at_once_cannot_both_take_the_last_place(
    http: httpx.Client, db: Session, job_body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setenv("CHERRY_MAX_ACTIVE_JOBS", "1")
    get_settings.cache_clear()
    found: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: found.append(http.post("/v1/fine_tuning/jobs", json=job_body)))
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
    http: httpx.Client, db: Session, tenant: Tenant, job_body: dict[str, Any], tmp_path: Path
) -> None:
    def wake_ups() -> int:
        return len(list((tmp_path / "broker").rglob("*.msg")))

    seen: list[int] = []
    with unit_of_work() as own:
        make_job(own, tenant.project_id)
        wake_validator(own)
        after_commit(own, lambda: seen.append(db.query(Job).count()))
        assert (wake_ups(), seen) == (0, [])
    assert seen == [1]
    wait_for(lambda: wake_ups() == 1, what="the wake-up")
    http.post("/v1/fine_tuning/jobs", json=job_body)
    wait_for(lambda: wake_ups() == 2, what="the second one")
    http.post("/v1/fine_tuning/jobs", json=job_body | {"model": "none"})
    assert wake_ups() == 2


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
