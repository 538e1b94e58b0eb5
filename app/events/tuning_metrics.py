"""Gives the numbers of a supervised or dpo step (docs/metrics.md) OpenAI's names.

What was not measured is left out: full validations are at the ends of epochs only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Numbers = Mapping[str, Any]

NAMES = {
    "train_loss": "loss/train",
    "train_mean_token_accuracy": "accuracy/train",
    "valid_loss": "loss/valid",
    "valid_mean_token_accuracy": "accuracy/valid",
    "full_valid_loss": "loss/full_valid",
    "full_valid_mean_token_accuracy": "accuracy/full_valid",
}
"""OpenAI's names, on events, on checkpoints and in the result file."""
OF_DPO = {
    "train_reward_accuracy": "dpo/reward_accuracy",
    "train_reward_margin": "dpo/reward_margin",
    "valid_reward_accuracy": "dpo/valid_reward_accuracy",
    "valid_reward_margin": "dpo/valid_reward_margin",
    "full_valid_reward_accuracy": "dpo/full_valid_reward_accuracy",
    "full_valid_reward_margin": "dpo/full_valid_reward_margin",
}
OURS = {
    "kl": "kl/probe_mean",
    "kl_stderr": "kl/probe_stderr",
    "learning_rate": "optim/lr",
    "grad_norm": "optim/grad_norm",
}


def tuning_event(step: int, total_steps: int, values: Numbers) -> tuple[str, dict[str, Any]]:
    """Returns message and data of a step's event."""
    parts = {"training loss": "loss/train", "validation loss": "loss/valid"}
    parts["full validation loss"] = "loss/full_valid"
    told = [f"{label}={values[name]:.2f}" for label, name in parts.items() if values.get(name) is not None]
    message = f"Step {step}/{total_steps}: {', '.join(told)}"
    return message, {"step": step, "total_steps": total_steps, **tuning_numbers(values)}


def tuning_numbers(values: Numbers) -> dict[str, float]:
    """Returns the flat numbers of a step."""
    names = NAMES | OF_DPO | OURS
    return {theirs: values[ours] for theirs, ours in names.items() if values.get(ours) is not None}


def tuning_columns(method: str) -> tuple[str, ...]:
    """Returns the columns of a result file, OpenAI's first."""
    return ("step", *NAMES, "train_accuracy", *(OF_DPO if method == "dpo" else ()), *OURS)


def tuning_row(step: int, values: Numbers) -> dict[str, float]:
    """Returns a step in the result file, where the accuracy stands by its old name too."""
    row = {"step": step, **tuning_numbers(values)}
    if "train_mean_token_accuracy" in row:
        row["train_accuracy"] = row["train_mean_token_accuracy"]
    return row
