"""Jobs of the methods supervised and dpo on the wire: created, shown, their results."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy.orm import Session

from app.jobs.models import Job
from app.jobs.results import results_csv
from methods.hyperparameters import Facts
from methods.resolve import resolve_tuning
from tests.app.http import openai_schema
from tests.factories import GRADER, Tenant, make_checkpoint, make_file, make_job, make_metrics

FACTS = Facts(hidden_size=1024, context=512, longest_prompt=100, n_train=300)
RUN: dict[str, Any] = {"model": "cherry-nano", "model_path": "x", "seed": 7}
AUTO = {"batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": "auto"}
VALUES = {
    "loss/train": 0.004,
    "accuracy/train": 0.99,
    "loss/valid": 0.02,
    "accuracy/valid": 0.97,
    "loss/full_valid": 0.05,
    "accuracy/full_valid": 0.96,
    "kl/probe_mean": 0.3,
}


@pytest.fixture
def body(db: Session, tenant: Tenant) -> dict[str, Any]:
    file = make_file(db, tenant.project_id)
    db.commit()
    return {"model": "cherry-nano", "training_file": file.id}


def tuned(db: Session, tenant: Tenant, method: str, **hyperparameters: Any) -> Job:
    """A job whose config is resolved."""
    asked = AUTO | ({"beta": "auto"} if method == "dpo" else {}) | hyperparameters
    job_method = {"type": method, method: {"hyperparameters": asked}}
    config = resolve_tuning(job_method, FACTS, **RUN).model_dump(mode="json")
    return make_job(db, tenant.project_id, method=job_method, config=config)


def test_a_job_without_method_is_supervised_with_the_deprecated_hyperparameters(
    client: openai.OpenAI, body: dict[str, Any]
) -> None:
    job = client.fine_tuning.jobs.create(**body, hyperparameters={"n_epochs": 4})
    assert job.hyperparameters.model_dump() == {**AUTO, "n_epochs": 4}
    assert job.method is not None
    assert job.method.type == "supervised"
    assert job.method.supervised is not None
    assert job.method.supervised.hyperparameters is not None
    assert job.method.supervised.hyperparameters.model_dump() == job.hyperparameters.model_dump()
    assert client.fine_tuning.jobs.retrieve(job.id) == job


def test_blocks_of_other_methods_are_not_read_even_if_all_are_filled(
    client: openai.OpenAI, body: dict[str, Any], http: httpx.Client
) -> None:
    """What the official client's own tests send."""
    hyperparameters: Any = {"batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": "auto"}
    made = client.fine_tuning.jobs.create(
        **body,
        hyperparameters=hyperparameters,
        integrations=[
            {
                "type": "wandb",
                "wandb": {"project": "my-wandb-project", "entity": "e", "name": "n", "tags": ["t"]},
            }
        ],
        metadata={"foo": "string"},
        method={
            "type": "supervised",
            "dpo": {"hyperparameters": {**hyperparameters, "beta": "auto"}},
            "reinforcement": {"grader": GRADER, "hyperparameters": {**hyperparameters, "eval_samples": 99}},
            "supervised": {"hyperparameters": {**hyperparameters, "n_epochs": 2}},
        },
        seed=42,
        suffix="x",
    )
    shown = http.get(f"/v1/fine_tuning/jobs/{made.id}").json()
    openai_schema.check(shown, "FineTuningJob")
    assert shown["method"] == {
        "type": "supervised",
        "supervised": {"hyperparameters": {**AUTO, "n_epochs": 2}},
    }
    assert shown["hyperparameters"] == {**AUTO, "n_epochs": 2}
    assert (shown["seed"], shown["metadata"]) == (42, {"foo": "string"})


def test_a_dpo_job_shows_its_hyperparameters_in_its_method_only(
    client: openai.OpenAI, body: dict[str, Any], http: httpx.Client
) -> None:
    job = client.fine_tuning.jobs.create(**body, method={"type": "dpo"})
    assert job.hyperparameters.model_dump(exclude_unset=True) == {}
    assert job.method is not None
    assert job.method.dpo is not None
    assert job.method.dpo.hyperparameters is not None
    assert job.method.dpo.hyperparameters.model_dump() == {**AUTO, "beta": "auto"}
    openai_schema.check(http.get(f"/v1/fine_tuning/jobs/{job.id}").json(), "FineTuningJob")


def test_resolved_numbers_take_the_place_of_auto(
    client: openai.OpenAI, db: Session, tenant: Tenant, http: httpx.Client
) -> None:
    supervised = tuned(db, tenant, "supervised", n_epochs=5)
    dpo = tuned(db, tenant, "dpo", learning_rate_multiplier=2.0)
    db.commit()
    shown = client.fine_tuning.jobs.retrieve(supervised.id)
    numbers = {"n_epochs": 5, "batch_size": 10, "learning_rate_multiplier": 1.0}
    assert shown.hyperparameters.model_dump() == numbers
    assert shown.method is not None
    assert shown.method.supervised is not None
    assert shown.method.supervised.hyperparameters is not None
    assert shown.method.supervised.hyperparameters.model_dump() == numbers
    other = http.get(f"/v1/fine_tuning/jobs/{dpo.id}").json()
    assert other["hyperparameters"] == {}
    numbers = {"n_epochs": 2, "batch_size": 10, "learning_rate_multiplier": 2.0, "beta": 0.1}
    assert other["method"]["dpo"]["hyperparameters"] == numbers


def test_a_job_for_written_answers_gets_one_process(http: httpx.Client, body: dict[str, Any]) -> None:
    response = http.post("/v1/fine_tuning/jobs", json=body | {"resources": {"gpus": 2}})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "resources.gpus")
    assert error["code"] == "unsupported_parameter"
    assert http.post("/v1/fine_tuning/jobs", json=body | {"resources": {"gpus": 1}}).status_code == 200


def test_checkpoints_have_the_losses_of_their_step(
    client: openai.OpenAI, db: Session, tenant: Tenant
) -> None:
    job = tuned(db, tenant, "supervised")
    make_metrics(db, job, 30, VALUES)
    make_checkpoint(db, job, 30, valid_reward=None)
    db.commit()
    (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(job.id).data
    metrics = checkpoint.metrics
    assert (metrics.train_loss, metrics.train_mean_token_accuracy) == (0.004, 0.99)
    assert (metrics.full_valid_loss, metrics.full_valid_mean_token_accuracy) == (0.05, 0.96)
    assert "full_valid_mean_reward" not in (metrics.model_extra or {})


def test_the_result_file_has_a_row_for_each_step_and_cells_only_for_what_was_measured(
    db: Session, tenant: Tenant
) -> None:
    job = tuned(db, tenant, "supervised")
    make_metrics(db, job, 1, {"loss/train": 1.5, "accuracy/train": 0.25})
    make_metrics(db, job, 2, VALUES)
    header, *rows = (line.split(",") for line in results_csv(db, job).splitlines())
    assert header[:7] == [
        "step",
        "train_loss",
        "train_mean_token_accuracy",
        "valid_loss",
        "valid_mean_token_accuracy",
        "full_valid_loss",
        "full_valid_mean_token_accuracy",
    ]
    first, second = (dict(zip(header, row, strict=True)) for row in rows)
    assert (first["train_loss"], first["train_accuracy"], first["full_valid_loss"]) == ("1.5", "0.25", "")
    assert (second["step"], second["valid_loss"], second["kl"]) == ("2", "0.02", "0.3")
