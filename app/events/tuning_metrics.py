"""Gives the numbers of a supervised or dpo step (docs/metrics.md) OpenAI's names.

What was not measured is left out: full validations are at the ends of epochs only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.events.rft_metrics import with_errors
from methods import metrics as names

Numbers = Mapping[str, Any]

NAMES = {
    "train_loss": names.LOSS.format(split="train"),
    "train_mean_token_accuracy": names.ACCURACY.format(split="train"),
    "valid_loss": names.LOSS.format(split="valid"),
    "valid_mean_token_accuracy": names.ACCURACY.format(split="valid"),
    "full_valid_loss": names.LOSS.format(split="full_valid"),
    "full_valid_mean_token_accuracy": names.ACCURACY.format(split="full_valid"),
}
"""OpenAI's names, on events, on checkpoints and in the result file."""
OF_DPO = {
    "train_reward_accuracy": names.DPO_REWARD_ACCURACY,
    "train_reward_margin": names.DPO_REWARD_MARGIN,
    "valid_reward_accuracy": names.DPO_VALID_REWARD_ACCURACY.format(split="valid"),
    "valid_reward_margin": names.DPO_VALID_REWARD_MARGIN.format(split="valid"),
    "full_valid_reward_accuracy": names.DPO_VALID_REWARD_ACCURACY.format(split="full_valid"),
    "full_valid_reward_margin": names.DPO_VALID_REWARD_MARGIN.format(split="full_valid"),
}
OURS = {
    "kl": names.KL_PROBE_MEAN,
    "kl_stderr": names.KL_PROBE_STDERR,
    "learning_rate": names.LEARNING_RATE,
    "grad_norm": names.GRAD_NORM,
}


def tuning_event(step: int, total_steps: int, values: Numbers) -> tuple[str, dict[str, Any]]:
    """Returns message and data of a step's event."""
    parts = {
        "training loss": names.LOSS.format(split="train"),
        "validation loss": names.LOSS.format(split="valid"),
    }
    parts["full validation loss"] = names.LOSS.format(split="full_valid")
    told = [f"{label}={values[name]:.2f}" for label, name in parts.items() if values.get(name) is not None]
    message = f"Step {step}/{total_steps}: {', '.join(told)}"
    return message, {"step": step, "total_steps": total_steps, **with_errors(tuning_numbers(values))}


def tuning_numbers(values: Numbers) -> dict[str, float]:
    """Returns the flat numbers of a step."""
    renamed = NAMES | OF_DPO | OURS
    return {theirs: values[ours] for theirs, ours in renamed.items() if values.get(ours) is not None}


def tuning_columns(method: str) -> tuple[str, ...]:
    """Returns the columns of a result file, OpenAI's first."""
    return ("step", *NAMES, "train_accuracy", *(OF_DPO if method == "dpo" else ()), *OURS)


def tuning_row(step: int, values: Numbers) -> dict[str, float]:
    """Returns a step in the result file, where the accuracy stands by its old name too."""
    row = {"step": step, **tuning_numbers(values)}
    if "train_mean_token_accuracy" in row:
        row["train_accuracy"] = row["train_mean_token_accuracy"]
    return row
