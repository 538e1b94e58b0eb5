""" "auto" turned into numbers: from a job's method and what validation found to a whole TrainConfig."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from methods.train_config import TrainConfig

PROMPTS_PER_STEP = 8
GROUP_SIZE = 8
STEPS = 40
"""About how many updates a run of "auto" epochs makes."""
MAX_EPOCHS = 50
NEAREST_EVAL, FARTHEST_EVAL = 5, 25
"""Steps between validations: one epoch, within these."""
COMPLETION_TOKENS = 256
LORA_RATE_AT_4096 = 4e-5
"""AdamW's rate for a LoRA adapter of a model with hidden size 4096; it falls as models grow wider."""
OPTIONAL = (
    "temperature",
    "stop",
    "beta",
    "clip_low",
    "clip_high",
    "importance_cap",
    "updates_per_step",
    "scale_advantage",
    "aggregation",
    "sampling_rounds",
    "overlong_buffer",
    "overlong_penalty",
    "mask_truncated",
    "gae_lambda",
    "warmup_steps",
    "async_steps",
    "gradient_checkpointing",
    "dtype",
    "sharding",
    "grade_failure_limit",
    "grade_failure_steps",
    "grade_concurrency",
)
"""Hyperparameters with a default in TrainConfig, perhaps one of the algorithm's: passed on only if given."""
SHOWN = (
    "n_epochs",
    "eval_interval",
    "eval_samples",
    "adapter",
    "algorithm",
    "group_size",
    "learning_rate",
    "max_completion_tokens",
    *OPTIONAL,
)
"""What a job's reply shows of its TrainConfig under the same names."""
FULL_RATE_SHARE = 0.1
"""Rate of a full fine-tune as a share of an adapter's."""


class ConfigImpossible(Exception):
    """A job cannot run with these files and hyperparameters. `param` is the request's field."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


def resolve_config(
    job_method: Mapping[str, Any],
    *,
    model: str,
    model_path: str,
    hidden_size: int,
    context: int,
    longest_prompt: int | None,
    n_train: int,
    n_valid: int,
    seed: int,
    resources: Mapping[str, int] | None = None,
    grading: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """The run that a job's method and resources mean for this model and these files.

    `context` and `longest_prompt` are in tokens. `grading`: fields of the config that follow from grader and
    settings, where the job does not say otherwise. Raises `ConfigImpossible`.
    """
    asked = _asked(job_method)
    prompts_per_step = asked.get("batch_size", min(PROMPTS_PER_STEP, n_train))
    per_epoch = -(-n_train // prompts_per_step)
    adapter = asked.get("adapter", "lora")
    optional: dict[str, Any] = {
        **(grading or {}),
        **{name: asked[name] for name in OPTIONAL if name in asked},
    }
    if "lora_rank" in asked:
        optional |= {"lora_rank": asked["lora_rank"], "lora_alpha": 2.0 * asked["lora_rank"]}
    return TrainConfig(
        model=model,
        model_path=model_path,
        algorithm=asked.get("algorithm", "grpo"),
        seed=seed,
        n_epochs=asked.get("n_epochs", _clamp(math.ceil(STEPS / per_epoch), 1, MAX_EPOCHS)),
        prompts_per_step=prompts_per_step,
        group_size=asked.get(
            "group_size", _clamp(round(GROUP_SIZE * asked.get("compute_multiplier", 1)), 2, 64)
        ),
        max_completion_tokens=_completion_tokens(asked, context, longest_prompt or 0),
        adapter=adapter,
        learning_rate=_learning_rate(asked, adapter, hidden_size),
        eval_interval=asked.get("eval_interval", _clamp(per_epoch, NEAREST_EVAL, FARTHEST_EVAL)),
        eval_samples=asked.get("eval_samples", 1) if n_valid else 1,
        response_format=_response_format(job_method["reinforcement"]),
        **optional,
        **_place(resources or {}),
    )


def shown_hyperparameters(requested: Mapping[str, Any], config: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a job's reply shows: as requested, then resolved, under OpenAI's names and ours."""
    if config is None:
        return dict(requested)
    resolved = {name: config[name] for name in SHOWN if _says_something(name, config)}
    resolved["batch_size"] = config["prompts_per_step"]
    if config["adapter"] == "lora":
        resolved["lora_rank"] = config["lora_rank"]
    shown = {**requested, **resolved}
    for multiplier in ("learning_rate_multiplier", "compute_multiplier"):
        if shown.get(multiplier) == "auto":
            shown[multiplier] = 1.0
    return shown


def _response_format(block: Mapping[str, Any]) -> dict[str, Any] | None:
    asked = block.get("response_format")
    return None if asked is None or asked["type"] == "text" else dict(asked)


def _says_something(name: str, config: Mapping[str, Any]) -> bool:
    """Not what older jobs lack or the algorithm does not read, nor "auto", which the worker decides."""
    if name == "gae_lambda" and config["algorithm"] != "ppo":
        return False
    return bool(config.get(name, "auto") != "auto")


def _place(resources: Mapping[str, int]) -> dict[str, Any]:
    """Where a run computes, and in how many processes; by default one, on a GPU if there is one."""
    if "gpus" in resources:
        return {"processes": resources["gpus"], "device": "cuda"}
    if "processes" in resources:
        return {"processes": resources["processes"], "device": "cpu"}
    return {}


def _asked(job_method: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters that were given as values."""
    given = job_method["reinforcement"]["hyperparameters"]
    return {name: value for name, value in given.items() if value is not None and value != "auto"}


def _learning_rate(asked: Mapping[str, Any], adapter: str, hidden_size: int) -> float:
    if "learning_rate" in asked:
        return float(asked["learning_rate"])
    rate = LORA_RATE_AT_4096 * 4096 / hidden_size
    if adapter == "full":
        rate *= FULL_RATE_SHARE
    return min(1.0, rate * float(asked.get("learning_rate_multiplier", 1.0)))


def _completion_tokens(asked: Mapping[str, Any], context: int, longest_prompt: int) -> int:
    room = context - longest_prompt
    if room < 1:
        message = f"The longest prompt has {longest_prompt} tokens, but the model reads {context} at most."
        raise ConfigImpossible(message, "training_file")
    wanted = asked.get("max_completion_tokens")
    if wanted is None:
        return min(COMPLETION_TOKENS, room)
    if wanted > room:
        message = (
            f"max_completion_tokens is {wanted}, but the longest prompt ({longest_prompt} tokens) leaves "
            f"{room} of the model's {context}."
        )
        raise ConfigImpossible(message, "method.reinforcement.hyperparameters.max_completion_tokens")
    return int(wanted)


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))
