"""A job that found nothing better than the base says what was seen, and what to change."""

from __future__ import annotations

from typing import Any

import pytest

from methods.train_config import TrainConfig
from workers.jobs.advice import Step, advice, drift_warning, rounding_warning


def config(**changes: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "model": "m",
        "model_path": "m",
        "seed": 1,
        "n_epochs": 1,
        "prompts_per_step": 1,
        "group_size": 2,
        "max_completion_tokens": 256,
        "learning_rate": 3e-4,
        "eval_interval": 1,
    }
    return TrainConfig(**{**fields, **changes})


def history(*steps: dict[str, float], kl: float = 0.3, **every: float) -> list[Step]:
    """The base, and steps with 24 validation rows; `every` stands in each, under short names."""
    names = {
        "ungraded": "grades/train_ungraded_share",
        "valid_ungraded": "grades/valid_ungraded_share",
        "unparsed": "grades/train_parse_error_share",
        "cut": "completion/train_truncated_share",
        "flat": "groups/no_spread_share",
        "reward": "reward/mean",
        "gain": "reward/over_base_mean",
        "error": "reward/over_base_stderr",
        "kl": "kl/probe_mean",
    }
    usual = {"grades/train_count": 64.0, "grades/valid_count": 24.0, "kl/probe_mean": kl}
    base = Step(0, {"kl/probe_mean": 0.0, "reward/over_base_mean": 0.0})
    told = [
        usual | {names.get(name, name): value for name, value in {**every, **step}.items()} for step in steps
    ]
    return [base, *(Step(10 * (i + 1), values) for i, values in enumerate(told))]


FAILURES = {"failures/train/python_grader_runtime_error": 60.0, "failures/train/sample_parse_error": 99.0}


@pytest.mark.parametrize(
    ("steps", "settings", "expected"),
    [
        pytest.param(
            history({"ungraded": 0.9, **FAILURES}),
            {},
            "90% of the training grades failed (python_grader_runtime_error 60). Mend the grader",
            id="grades-failed",
        ),
        pytest.param(
            history({"valid_ungraded": 1.0, "failures/valid/other_error": 24.0}),
            {},
            "All validation grades failed (other_error 24). Mend the grader",
            id="validation-grades-failed",
        ),
        pytest.param(
            history({"gain": 0.04, "error": 0.05}, {"gain": -0.3, "error": 0.1, "kl": 4.12}),
            {},
            "The policy collapsed at step 20: it had moved 4.1 nats per token from the base, and its"
            " validation reward by -0.3 ± 0.1. Lower the learning rate (it was 0.0003) to a third, or raise"
            " beta (it was 0.02).",
            id="collapsed",
        ),
        pytest.param(
            history({"gain": -0.3, "error": 0.1}),
            {},
            "The validation reward fell, by -0.3 ± 0.1 at step 10. Lower the learning rate",
            id="fell",
        ),
        pytest.param(
            history({"gain": 0.0, "error": 0.1}, unparsed=0.98),
            {},
            "98% of the training answers could not be parsed. Give the job a response_format",
            id="does-not-parse",
        ),
        pytest.param(
            history({"gain": 0.0, "error": 0.1}, unparsed=0.98),
            {"response_format": {"type": "json_object"}},
            "could not be parsed. Ask for shorter answers, or raise max_completion_tokens",
            id="does-not-parse-though-held-to-a-form",
        ),
        pytest.param(
            history({"gain": 0.0, "error": 0.1}, cut=0.75),
            {},
            "75% of the training answers were cut at max_completion_tokens (256)",
            id="cut",
        ),
        pytest.param(
            history({"gain": 0.0, "error": 0.0}, flat=0.95, reward=0.99),
            {},
            "For 95% of the training prompts all completions got the same reward (mean 0.99), which teaches"
            " nothing. The base solves the task already",
            id="solved",
        ),
        pytest.param(
            history({"gain": 0.0, "error": 0.0}, flat=1.0, reward=-5.0),
            {"reward_range": (-5, 5)},
            "(mean -5), which teaches nothing. The task is out of the base's reach",
            id="out-of-reach",
        ),
        pytest.param(
            history({"gain": 0.0, "error": 0.0}, flat=1.0, reward=0.5),
            {},
            "The grader does not tell answers to the same prompt apart",
            id="constant",
        ),
        pytest.param(
            history({"gain": 0.03, "error": 0.05}, {"gain": 0.01, "error": 0.02}),
            {},
            "The best gain, at step 10, was +0.03 ± 0.05 on 24 validation rows, which may be luck. If it is"
            " real, 181 validation rows would show it",
            id="gain-not-sure",
        ),
        pytest.param(
            history({"gain": 0.3}, **{"grades/valid_count": 3.0}),
            {},
            "The best gain, at step 10, was +0.3 ± an unknown error on 3 validation rows, which are too few",
            id="too-few-rows",
        ),
        pytest.param(
            history({"gain": -0.01, "error": 0.05}, {"gain": -0.02, "error": 0.02}, kl=0.002),
            {},
            "The best checkpoint, of step 10, gained -0.01 ± 0.05. The policy hardly moved (0.002 nats per"
            " token from the base): raise n_epochs, or learning_rate_multiplier (the rate was 0.0003).",
            id="hardly-moved",
        ),
        pytest.param(
            history(
                {"reward": 0.1}, {"reward": 0.12}, {"reward": 0.88}, {"reward": 0.9}, gain=-0.1, error=0.1
            ),
            {},
            "The training reward rose from 0.11 to 0.89: what was learnt does not carry over",
            id="by-heart",
        ),
        pytest.param(
            history({"reward": 0.5}, {"reward": 0.1}, {"reward": 0.3}, {"reward": 0.4}, gain=-0.1, error=0.1),
            {},
            "The training reward did not rise either",
            id="nothing",
        ),
    ],
)
def test_the_advice_is_about_what_was_seen(
    steps: list[Step], settings: dict[str, Any], expected: str
) -> None:
    said = advice(steps, config(**settings))
    assert said.startswith("No checkpoint was better than the base model beyond doubt")
    assert expected in said


def test_nothing_measured_is_no_fault() -> None:
    assert "None was validated" in advice([], config())
    assert advice([Step(0, {"kl/probe_mean": None})], config())


def test_several_answers_a_row_count_as_one_row() -> None:
    said = advice(history({"gain": 0.1, "error": 0.2}), config(eval_samples=4))
    assert "on 6 validation rows" in said


def test_a_delivered_model_far_from_its_base_is_warned_of() -> None:
    assert drift_warning(10, 1.9, config()) is None
    said = drift_warning(40, 9.43, config(beta=0.0))
    assert said
    assert "(step 40) has moved 9.4 nats per token" in said
    assert "Lower the learning rate (it was 0.0003) to a third, or raise beta (it was 0)." in said


def test_what_rounding_lost_is_told_from_half_of_the_change_on():
    assert rounding_warning(10, None, has_adapter=True) is None
    assert rounding_warning(10, 0.5, has_adapter=True) is None
    said = rounding_warning(40, 0.83, has_adapter=True)
    assert "step 40" in said
    assert "83%" in said
    assert "adapter/" in said
    assert "adapter/" not in rounding_warning(40, 0.83, has_adapter=False)
