"""The engine's numbers as OpenAI's events, checkpoints and result files tell them."""

from __future__ import annotations

import csv

import pytest
from sqlalchemy.orm import Session

from app.events.rft_metrics import metrics_event, reward_numbers, usage_so_far
from app.events.tuning_metrics import tuning_event
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


def test_an_error_that_is_not_known_is_null() -> None:
    measured = {"kl/probe_mean": 0.01, "reward/over_base_mean": 0.2}
    data = metrics_event(10, 20, measured, GRADER)[1]
    assert (data["kl"], data["kl_stderr"]) == (0.01, None)
    assert (data["advantage_over_base"], data["advantage_stderr"]) == (0.2, None)
    assert tuning_event(10, 20, {"kl/probe_mean": 0.01})[1]["kl_stderr"] is None


def test_other_steps_say_nothing_of_validation() -> None:
    values = {name: value for name, value in STEP_VALUES.items() if "valid" not in name}
    message, data = metrics_event(3, 20, values, GRADER)
    assert message == "Step 3/20 , train mean reward=0.42"
    assert not [key for key in str(data).split("'") if key.startswith(("valid", "full_valid", "eval_"))]
    assert None not in data.values()


JUDGED = {
    "type": "multi",
    "name": "overall",
    "graders": {
        "tone": {"type": "score_model", "name": "tone", "model": "meta/judge-8b"},
        "kind": {"type": "label_model", "name": "kind", "model": "small"},
        "same": {**GRADER, "name": "same"},
    },
    "calculate_output": "tone + kind + same",
}
TOKENS = {
    "usage/train/prompt_tokens/meta/judge-8b": 6400.0,
    "usage/train/completion_tokens/meta/judge-8b": 640.0,
    "usage/train/cached_tokens/meta/judge-8b": 100.0,
    "usage/valid/prompt_tokens/small": 50.0,
    "part_usage/train/prompt_tokens/tone": 6400.0,
    "part_usage/train/completion_tokens/tone": 640.0,
    "part_seconds/train/tone": 1.5,
    "usage/total/prompt_tokens/meta/judge-8b": 9000.0,
    "usage/total/completion_tokens/meta/judge-8b": 900.0,
    "usage/total/cached_tokens/meta/judge-8b": 100.0,
    "time/total": 12.5,
}


def test_tokens_of_judges_are_told_by_grader_and_by_model() -> None:
    _, data = metrics_event(1, 2, STEP_VALUES | TOKENS, JUDGED)
    tone, kind = data["usage"]["graders"]
    assert tone["model"] == "meta/judge-8b"
    assert (tone["train_prompt_tokens_mean"], tone["train_prompt_tokens_count"]) == (100.0, 6400.0)
    assert (tone["train_completion_tokens_mean"], kind["train_completion_tokens_count"]) == (10.0, 0.0)
    assert data["model_graders_token_usage"] == {
        "meta/judge-8b": {
            "train_prompt_tokens": 6400,
            "train_completion_tokens": 640,
            "train_cached_tokens": 100,
        },
        "small": {"eval_prompt_tokens": 50},
    }
    assert data["timing"]["graders"][0]["train_execution_latency_mean"] == 1.5


def test_errors_of_judges_are_told_also_when_there_were_none() -> None:
    values = STEP_VALUES | {"part_failures/train/model_grader_refusal_error/tone": 16.0}
    _, data = metrics_event(1, 2, values, JUDGED)
    tone, kind, same = data["errors"]["graders"]
    assert tone["train_model_grader_refusal_error_mean"] == 0.25
    assert kind["train_model_grader_exceeded_max_tokens_error_count"] == 0.0
    assert "train_model_grader_server_error_count" not in same


def test_usage_of_a_job_so_far_is_time_and_tokens() -> None:
    assert usage_so_far(TOKENS) == {
        "training_seconds": 12.5,
        "grader_tokens": {
            "meta/judge-8b": {"prompt_tokens": 9000, "completion_tokens": 900, "cached_tokens": 100}
        },
    }


def test_a_multi_grader_of_one_bare_grader_is_told_by_its_name() -> None:
    bare = {"type": "multi", "graders": {**GRADER, "name": "only"}, "calculate_output": "only"}
    _, data = metrics_event(1, 2, {**STEP_VALUES, "parts/train/only": 0.5}, bare)
    assert data["scores"]["graders"] == [{"name": "only", "type": "string_check", "train_reward_mean": 0.5}]


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


def test_calls_of_tools_are_told_by_name_and_in_the_result_file(db: Session, tenant: Tenant) -> None:
    values = {
        "episodes/train_turns_mean": 2.5,
        "episodes/valid_user_turns_mean": 1.25,
        "tools/train/calls_mean/look_up": 1.5,
        "tools/train/errors/look_up": 3.0,
        "tools/valid/seconds_mean/look_up": 0.2,
        "tools/train/tokens_mean/count": 7.0,
    }
    _, data = metrics_event(1, 2, values)
    assert (data["episode_turns_mean"], data["valid_episode_user_turns_mean"]) == (2.5, 1.25)
    assert data["tools"] == [
        {"name": "count", "train_tokens_mean": 7.0},
        {"name": "look_up", "train_calls_mean": 1.5, "train_error_count": 3.0, "valid_latency_mean": 0.2},
    ]
    job = make_job(db, tenant.project_id)
    make_metrics(db, job, 1, values)
    (row,) = csv.DictReader(results_csv(db, job).splitlines())
    assert row["valid_episode_user_turns_mean"] == "1.25"
    assert (row["tools/look_up/train_calls_mean"], row["tools/count/train_tokens_mean"]) == ("1.5", "7.0")


def test_a_job_without_steps_has_a_header_only(db: Session, tenant: Tenant) -> None:
    assert len(results_csv(db, make_job(db, tenant.project_id)).splitlines()) == 1
