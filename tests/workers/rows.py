"""Rows for tests: plain functions that write what the API would have written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

import app.tables  # noqa: F401
from app.files import service as files
from app.files.models import File
from app.ids import random_id
from app.jobs.models import Job
from app.models.models import Model
from app.tenants import service as tenants

GRADER = {
    "type": "string_check",
    "name": "has_letter",
    "operation": "ilike",
    "input": "{{sample.output_text}}",
    "reference": "{{item.letter}}",
}
SHORT = {
    "n_epochs": 2,
    "batch_size": 2,
    "eval_interval": 2,
    "group_size": 2,
    "max_completion_tokens": 4,
    "lora_rank": 2,
}


def data_rows(n: int = 4) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": f"Say {letter}."}], "letter": letter}
        for letter in "aeiourstln"[:n]
    ]


def make_file(db: Session, rows: Sequence[Any] | bytes, name: str = "train.jsonl") -> File:
    """A data file with its bytes in storage."""
    text = rows if isinstance(rows, bytes) else "".join(json.dumps(row) + "\n" for row in rows).encode()
    project = tenants.ensure_default_tenant(db)
    stored = files.store_bytes(files.reserve(db), text)
    return files.create(db, project.id, stored, filename=name, purpose="fine-tune")


def make_job(
    db: Session,
    *,
    status: str = "validating_files",
    training: Sequence[Any] | bytes | None = None,
    validation: Sequence[Any] | bytes | None = None,
    model: str = "tiny",
    hyperparameters: Mapping[str, Any] | None = None,
    grader: Mapping[str, Any] = GRADER,
    **values: Any,
) -> Job:
    """A committed job in any status."""
    training_file = make_file(db, training if training is not None else data_rows())
    validation_file = make_file(db, validation, "valid.jsonl") if validation is not None else None
    method = {"grader": dict(grader), "hyperparameters": {**SHORT, **(hyperparameters or {})}}
    job = Job(
        id=random_id("ftjob-"),
        project_id=training_file.project_id,
        status=status,
        model=model,
        training_file=training_file.id,
        validation_file=validation_file.id if validation_file else None,
        seed=7,
        method={"type": "reinforcement", "reinforcement": method},
        **values,
    )
    db.add(job)
    db.commit()
    return job


def chat_rows(n: int = 12) -> list[dict[str, Any]]:
    """Rows of a supervised job: one letter, answered by itself."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"Say {letter}."},
                {"role": "assistant", "content": letter},
            ]
        }
        for letter in "aeioubcdfghjklmnpqrstvwxyz"[:n]
    ]


def preference_rows(n: int = 12) -> list[dict[str, Any]]:
    """Rows of a dpo job: "yes" is better than "no"."""
    return [
        {
            "input": {"messages": row["messages"][:1]},
            "preferred_output": [{"role": "assistant", "content": "yes"}],
            "non_preferred_output": [{"role": "assistant", "content": "no"}],
        }
        for row in chat_rows(n)
    ]


def make_tuned_job(db: Session, method: str, training: Sequence[Any], **values: Any) -> Job:
    """A committed job of the method supervised or dpo whose files wait for validation."""
    asked = {"batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": "auto"}
    hyperparameters = asked | values.pop("hyperparameters", {})
    job = make_job(db, training=training, **values)
    job.method = {"type": method, method: {"hyperparameters": hyperparameters}}
    db.commit()
    return job


def make_model(db: Session, folder: str, name: str = "tiny") -> Model:
    """A committed base model."""
    model = Model(id=random_id("model_"), name=name, folder=folder)
    db.add(model)
    db.commit()
    return model


def fresh(db: Session, job: Job) -> Job:
    """The job as other processes have left it."""
    db.rollback()
    db.refresh(job)
    return job
