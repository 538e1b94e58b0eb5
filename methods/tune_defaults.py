""" "auto" turned into numbers for the methods supervised and dpo."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from methods.tune_config import TuneConfig, TuneMethod

EPOCHS: Mapping[TuneMethod, int] = {"supervised": 3, "dpo": 2}
STEPS_PER_EPOCH = 30
"""About how many updates an epoch of "auto" batches has."""
MAX_AUTO_BATCH = 32
RATE_AT_4096: Mapping[TuneMethod, float] = {"supervised": 2e-4, "dpo": 2e-5}
"""AdamW's rate for a LoRA adapter of a model with hidden size 4096; it falls with the root of the width."""
FULL_RATE_SHARE = 0.1
"""Rate of a full fine-tune as a share of an adapter's."""
WARM_UP_SHARE = 0.03
BETA = 0.1
PROBE_TOKENS = 64
SHOWN = ("n_epochs", "batch_size")
OURS = ("adapter", "lora_rank", "learning_rate", "gradient_checkpointing", "dtype")
"""Hyperparameters of Cherry's that these methods have as well (docs/methods.md)."""


def resolve_tuning(
    job_method: Mapping[str, Any],
    *,
    model: str,
    model_path: str,
    hidden_size: int,
    context: int,
    longest_prompt: int,
    n_examples: int,
    seed: int,
    device: str | None = None,
) -> TuneConfig:
    """The run that a job's method means for this model and these files; lengths are in tokens."""
    method: TuneMethod = job_method["type"]
    given = job_method[method]["hyperparameters"]
    asked = {name: value for name, value in given.items() if value != "auto"}
    batch_size = asked.get("batch_size", _clamp(round(n_examples / STEPS_PER_EPOCH), 1, MAX_AUTO_BATCH))
    n_epochs = asked.get("n_epochs", EPOCHS[method])
    per_epoch = -(-n_examples // batch_size)
    optional = {name: asked[name] for name in ("adapter", "gradient_checkpointing", "dtype") if name in asked}
    if "lora_rank" in asked:
        optional |= {"lora_rank": asked["lora_rank"], "lora_alpha": 2.0 * asked["lora_rank"]}
    if device is not None:
        optional["device"] = device
    return TuneConfig(
        method=method,
        model=model,
        model_path=model_path,
        seed=seed,
        n_epochs=n_epochs,
        batch_size=batch_size,
        eval_interval=per_epoch,
        learning_rate=_learning_rate(method, asked, hidden_size),
        warmup_steps=math.floor(WARM_UP_SHARE * n_epochs * per_epoch),
        beta=asked.get("beta", BETA),
        probe_tokens=_clamp(context - longest_prompt, 1, PROBE_TOKENS),
        **optional,
    )


def shown_tuning(
    method: TuneMethod, requested: Mapping[str, Any], config: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What a job's reply shows: as requested, then resolved."""
    if config is None:
        return dict(requested)
    names = (*SHOWN, "beta") if method == "dpo" else SHOWN
    shown = {**requested, **{name: config[name] for name in names}}
    if shown["learning_rate_multiplier"] == "auto":
        shown["learning_rate_multiplier"] = 1.0
    return shown


def shown_at_top(method: Mapping[str, Any], config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The job's own `hyperparameters`: OpenAI's three of a supervised job, nothing for other methods."""
    if method["type"] != "supervised":
        return {}
    shown = shown_tuning("supervised", method["supervised"]["hyperparameters"], config)
    return {name: value for name, value in shown.items() if name not in OURS}


def _learning_rate(method: TuneMethod, asked: Mapping[str, Any], hidden_size: int) -> float:
    if "learning_rate" in asked:
        return float(asked["learning_rate"])
    rate = RATE_AT_4096[method] * math.sqrt(4096 / hidden_size)
    if asked.get("adapter") == "full":
        rate *= FULL_RATE_SHARE
    return min(1.0, rate * float(asked.get("learning_rate_multiplier", 1.0)))


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))
