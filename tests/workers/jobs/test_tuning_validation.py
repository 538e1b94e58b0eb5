"""Validation of supervised and dpo jobs: the files' faults, and the numbers that "auto" becomes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.events.models import JobEvent
from app.jobs.models import Job
from methods.tune_config import TuneConfig
from tests.workers.rows import chat_rows, fresh, make_tuned_job, preference_rows
from workers.jobs.validators import validate_all


def validated(db: Session, method: str, training: list[Any], **values: Any) -> Job:
    job = make_tuned_job(db, method, training, **values)
    assert validate_all("me", threading.Event())
    return fresh(db, job)


def error_of(job: Job) -> dict[str, Any]:
    assert job.status == "failed"
    assert job.error is not None
    return job.error


def test_a_supervised_job_is_queued_with_numbers(db: Session, tiny_model: Path) -> None:
    asked = {"n_epochs": 2, "lora_rank": 4}
    job = validated(db, "supervised", chat_rows(12), validation=chat_rows(14)[12:], hyperparameters=asked)
    assert (job.status, job.error) == ("queued", None)
    config = TuneConfig.model_validate(job.config)
    assert (config.method, config.n_epochs, config.batch_size, config.lora_rank) == ("supervised", 2, 1, 4)
    assert (config.eval_interval, job.total_steps) == (12, 24)
    assert 0 < config.learning_rate < 0.01


def test_fewer_than_ten_examples_are_too_few_for_supervised(db: Session, tiny_model: Path) -> None:
    job = validated(db, "supervised", chat_rows(9))
    error = error_of(job)
    assert (error["code"], error["param"]) == ("invalid_n_examples", "training_file")
    said, _, named = error["message"].partition(": ")
    assert said == "Training file has 9 example(s), but must have at least 10 examples"
    assert named == f"{job.training_file} (train.jsonl)."


def test_a_dpo_job_may_have_a_few_pairs(db: Session, tiny_model: Path) -> None:
    job = validated(db, "dpo", preference_rows(3), hyperparameters={"beta": 0.5})
    assert job.status == "queued"
    config = TuneConfig.model_validate(job.config)
    assert (config.method, config.beta, job.total_steps) == ("dpo", 0.5, 6)


def test_a_bad_line_fails_the_job_and_is_named(db: Session, tiny_model: Path) -> None:
    rows: list[Any] = chat_rows(12)
    rows[4] = {"messages": [{"content": "no role"}]}
    error = error_of(validated(db, "supervised", rows))
    assert (error["code"], error["param"]) == ("invalid_training_file", "training_file")
    assert "line 5: messages[0] has no 'role'" in error["message"]


def test_rows_of_another_method_fail_the_job(db: Session, tiny_model: Path) -> None:
    error = error_of(validated(db, "supervised", chat_rows(), validation=preference_rows(2)))
    assert (error["code"], error["param"]) == ("invalid_validation_file", "validation_file")
    assert (
        "lines 1-2 (2 of 2 rows): 'messages' is missing; a preference row is for the method 'dpo'"
        in error["message"]
    )


@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_a_row_that_does_not_fit_the_model_is_named(db: Session, tiny_model: Path, method: str) -> None:
    rows = chat_rows(12) if method == "supervised" else preference_rows(12)
    message = (rows[6]["messages"] if method == "supervised" else rows[6]["preferred_output"])[-1]
    message["content"] = "x" * 300
    error = error_of(validated(db, method, rows))
    assert error["code"] == "invalid_training_file"
    assert "line 7 is too long" in error["message"]


def test_rows_in_both_files_are_a_doubt(db: Session, tiny_model: Path) -> None:
    job = validated(db, "dpo", preference_rows(5), validation=preference_rows(2))
    doubts = db.scalars(select(JobEvent.message).where(JobEvent.job_id == job.id, JobEvent.level == "warn"))
    assert any("2 of 2 validation prompts are in the training file too" in doubt for doubt in doubts)
