""" "auto" as numbers."""

from __future__ import annotations

from typing import Any

import pytest

from methods.algorithms import RECIPES
from methods.hyperparameters import Facts
from methods.resolve import ConfigImpossible, resolve_train, shown_training
from methods.train_config import TrainConfig

FACTS = Facts(hidden_size=4096, context=2048, longest_prompt=100, n_train=20, n_valid=10)


def resolve(
    hyperparameters: dict[str, Any] | None = None, resources: dict[str, int] | None = None, **facts: int
) -> TrainConfig:
    method = {"reinforcement": {"hyperparameters": hyperparameters or {"n_epochs": "auto"}}}
    run: dict[str, Any] = {"model": "m", "model_path": "models/m", "seed": 1, "resources": resources}
    return resolve_train(method, FACTS._replace(**facts), **run)


@pytest.mark.parametrize(
    ("n_train", "prompts_per_step", "n_epochs", "eval_interval"),
    [
        pytest.param(1, 1, 40, 5, id="one-row"),
        pytest.param(5, 5, 40, 5, id="less-than-a-step"),
        pytest.param(20, 8, 14, 5, id="tens"),
        pytest.param(100, 8, 4, 13, id="a-hundred"),
        pytest.param(10_000, 8, 1, 25, id="many"),
    ],
)
def test_the_run_grows_with_the_data(
    n_train: int, prompts_per_step: int, n_epochs: int, eval_interval: int
) -> None:
    config = resolve(n_train=n_train)
    assert (config.prompts_per_step, config.n_epochs, config.eval_interval) == (
        prompts_per_step,
        n_epochs,
        eval_interval,
    )
    assert n_train > 320 or 40 <= config.total_steps(n_train) < 53


def test_defaults() -> None:
    config = resolve()
    assert (config.group_size, config.beta, config.eval_samples, config.max_completion_tokens) == (
        8,
        0.02,
        8,
        256,
    )
    assert (config.algorithm, config.adapter, config.seed) == ("grpo", "lora", 1)


@pytest.mark.parametrize(("compute", "group_size"), [(0.00002, 2), (0.5, 4), (1, 8), (2.0, 16), (10, 64)])
def test_compute_buys_samples(compute: float, group_size: int) -> None:
    assert resolve({"compute_multiplier": compute}).group_size == group_size


@pytest.mark.parametrize(
    ("hyperparameters", "hidden_size", "rate"),
    [
        pytest.param({}, 4096, 4e-5, id="wide"),
        pytest.param({}, 1024, 1.6e-4, id="narrow"),
        pytest.param({"adapter": "full"}, 4096, 4e-6, id="full"),
        pytest.param({"learning_rate_multiplier": 2}, 4096, 8e-5, id="multiplied"),
        pytest.param({"learning_rate": 0.01, "learning_rate_multiplier": 2}, 4096, 0.01, id="given"),
        pytest.param({}, 205, 4e-5 * 4096 / 205, id="least-that-follows"),
        pytest.param({}, 64, 8e-4, id="narrowest"),
        pytest.param({"learning_rate_multiplier": 1000.0}, 4, 0.8, id="multiplied-most"),
    ],
)
def test_the_rate_follows_the_width(hyperparameters: dict[str, Any], hidden_size: int, rate: float) -> None:
    assert resolve(hyperparameters, hidden_size=hidden_size).learning_rate == pytest.approx(rate)


@pytest.mark.parametrize(
    ("hyperparameters", "targets"),
    [
        pytest.param({}, (0.5, 0.3), id="left-out"),
        pytest.param({"kl_target": 0.1}, (0.1, 0.0), id="own-target"),
        pytest.param({"kl_target_share": 0.1}, (0.5, 0.1), id="own-share"),
        pytest.param({"beta": 0.02}, (0.0, 0.0), id="own-beta"),
        pytest.param({"beta": 0.02, "kl_target": 0.1}, (0.1, 0.0), id="both"),
        pytest.param({"algorithm": "rloo"}, (0.5, 0.3), id="kl-in-the-reward"),
        pytest.param({"algorithm": "dapo"}, (0.0, 0.0), id="no-kl"),
    ],
)
def test_a_kl_target_is_held_unless_beta_is_chosen(
    hyperparameters: dict[str, Any], targets: tuple[float, float]
) -> None:
    config = resolve(hyperparameters)
    assert (config.kl_target, config.kl_target_share) == targets


def test_new_jobs_are_guarded_and_configs_without_the_field_are_not() -> None:
    assert resolve().guard == "act"
    assert TrainConfig.model_fields["guard"].default == "off"


@pytest.mark.parametrize("algorithm", sorted(RECIPES))
def test_an_algorithms_own_numbers_win_where_the_request_names_none(algorithm: str) -> None:
    config = resolve({"algorithm": algorithm}).model_dump()
    for name, value in RECIPES[algorithm].defaults.items():  # type: ignore[index]
        assert config[name] == value
    assert resolve({"algorithm": algorithm, "beta": 0.125, "clip_high": 0.5}).clip_high == 0.5


def test_what_is_asked_for_is_what_runs() -> None:
    asked: dict[str, Any] = {
        "algorithm": "ppo",
        "clip_low": 0.1,
        "clip_high": 0.3,
        "importance_cap": 3.0,
        "updates_per_step": 4,
        "scale_advantage": False,
        "aggregation": "sequence",
        "sampling_rounds": 2,
        "overlong_buffer": 0.25,
        "overlong_penalty": 0.75,
        "mask_truncated": True,
        "gae_lambda": 0.9,
        "warmup_steps": 3,
        "async_steps": 1,
        "gradient_checkpointing": True,
        "dtype": "bfloat16",
        "sharding": "fsdp",
        "stop": ["END"],
        "temperature": 0.7,
        "beta": 0.5,
        "grade_failure_limit": 0.25,
        "grade_failure_steps": 7,
        "grade_concurrency": 64,
    }
    config = resolve(asked).model_dump(mode="json")
    assert {name: config[name] for name in asked} == asked
    shown = shown_training(asked, config)
    assert {name: shown[name] for name in asked} == asked


@pytest.mark.parametrize(
    ("resources", "where"),
    [(None, (1, "auto")), ({"gpus": 4}, (4, "cuda")), ({"processes": 2}, (2, "cpu"))],
)
def test_resources_become_processes_and_a_device(
    resources: dict[str, int] | None, where: tuple[int, str]
) -> None:
    config = resolve(resources=resources)
    assert (config.processes, config.device) == where


def test_completions_get_the_room_that_prompts_leave() -> None:
    assert resolve(longest_prompt=2000).max_completion_tokens == 48
    assert resolve({"max_completion_tokens": 1948}).max_completion_tokens == 1948
    assert resolve(longest_prompt=0).max_completion_tokens == 256


def test_what_cannot_run_says_which_field() -> None:
    with pytest.raises(ConfigImpossible, match="longest prompt has 2048 tokens") as full:
        resolve(longest_prompt=2048)
    assert full.value.param == "training_file"
    with pytest.raises(ConfigImpossible, match="leaves 1948") as long:
        resolve({"max_completion_tokens": 1949})
    assert long.value.param.endswith("hyperparameters.max_completion_tokens")


def test_every_shown_number_is_what_ran() -> None:
    requested = {"n_epochs": "auto", "compute_multiplier": "auto", "reasoning_effort": "low"}
    assert shown_training(requested, None) == requested
    config = resolve({"n_epochs": 3, "lora_rank": 4})
    shown = shown_training(requested, config.model_dump(mode="json"))
    assert (shown["n_epochs"], shown["lora_rank"], shown["compute_multiplier"]) == (3, 4, 1.0)
    assert "auto" not in shown.values()
