"""The engine's numbers as OpenAI's events, checkpoints and result files tell them."""

from __future__ import annotations

import csv

import pytest
from sqlalchemy.orm import Session

from app.events.rft_metrics import metrics_event, reward_numbers
from app.jobs.results import results_csv
from tests.factories import GRADER, STEP_VALUES, Tenant, make_job, make_metrics

MULTI = {
    "type": "multi",
    "name": "overall",
    "graders": {
        "label": {**GRADER, "name": "label check"},
        "why": {"type": "text_similarity", "name": "why"},
    },
    "calculate_output": "label + why",
}


def test_a_validation_step_in_openais_words() -> None:
    message, data = metrics_event(10, 20, STEP_VALUES, GRADER)
    assert message == (
        "Step 10/20 , train mean reward=0.42, full validation mean reward=0.68, "
        "full validation mean parse error=0.10"
    )
    assert (data["step"], data["total_steps"]) == (10, 20)
    assert data["train_mean_reward"] == data["train_reward_mean"] == 0.421
    assert data["scores"]["train_reward_mean"] == 0.421
    assert data["scores"]["valid_reward_mean"] == data["full_valid_mean_reward"] == 0.68
    assert data["scores"]["graders"] == [
        {"name": "same", "type": "string_check", "train_reward_mean": 0.421, "valid_reward_mean": 0.68}
    ]
    errors = data["errors"]["graders"][0]
    assert (errors["valid_sample_parse_error_count"], errors["valid_sample_parse_error_mean"]) == (1.0, 0.1)
    assert errors["train_other_error_count"] == 0.0
    assert data["timing"]["step"] == {"sampling": 1.5, "full_iteration": 2.0}
    assert (data["kl"], data["kl_stderr"], data["mean_unresponsive_rewards"]) == (0.01, 0.002, 0.0)


def test_other_steps_say_nothing_of_validation() -> None:
    values = {name: value for name, value in STEP_VALUES.items() if "valid" not in name}
    message, data = metrics_event(3, 20, values, GRADER)
    assert message == "Step 3/20 , train mean reward=0.42"
    assert not [key for key in str(data).split("'") if key.startswith(("valid", "full_valid", "eval_"))]
    assert None not in data.values()


def test_a_multi_grader_is_told_by_its_parts() -> None:
    values = {
        **STEP_VALUES,
        "parts/train/label": 0.5,
        "parts/valid/why": 0.25,
        "part_failures/train/invalid_variable_error/why": 16.0,
    }
    _, data = metrics_event(1, 2, values, MULTI)
    assert data["scores"]["graders"] == [
        {"name": "label check", "type": "string_check", "train_reward_mean": 0.5},
        {"name": "why", "type": "text_similarity", "valid_reward_mean": 0.25},
    ]
    label, why = data["errors"]["graders"]
    assert label["train_invalid_variable_error_count"] == 0.0
    assert (why["train_invalid_variable_error_count"], why["train_invalid_variable_error_mean"]) == (
        16.0,
        0.25,
    )


@pytest.mark.parametrize("values", [{}, {"reward/mean": None}], ids=["nothing", "not-finite"])
def test_what_was_not_measured_is_left_out(values: dict[str, float | None]) -> None:
    message, data = metrics_event(1, 2, values)
    assert message == "Step 1/2 , no reward"
    assert "train_mean_reward" not in data
    assert reward_numbers(values) == {}


def test_the_result_file_has_a_row_per_step(db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id)
    make_metrics(db, job, 1, {"reward/mean": 0.25, "grades/train_count": 4.0})
    make_metrics(db, job, 2)
    rows = list(csv.DictReader(results_csv(db, job).splitlines()))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert [row["full_valid_mean_reward"] for row in rows] == ["", "0.68"]
    assert list(rows[0])[:3] == ["step", "train_mean_reward", "full_valid_mean_reward"]
    assert rows[1]["errors/graders/same/valid_sample_parse_error_count"] == "1.0"
    assert rows[1]["kl"] == "0.01"


def test_a_job_without_steps_has_a_header_only(db: Session, tenant: Tenant) -> None:
    assert len(results_csv(db, make_job(db, tenant.project_id)).splitlines()) == 1
