"""The engine's numbers of a step (docs/metrics.md) under the names that OpenAI's RFT events use.

Both of OpenAI's spellings are sent, since scripts read either. What was not measured is left out:
keys about validation appear on validation steps only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Numbers = Mapping[str, Any]

NAMES = {
    "train_mean_reward": "reward/mean",
    "full_valid_mean_reward": "reward/valid_mean",
    "full_valid_mean_parse_error": "grades/valid_parse_error_share",
    "mean_unresponsive_rewards": "grades/train_ungraded_share",
    "completion_tokens_mean": "completion/train_tokens_mean",
}
TWINS = {"train_reward_mean": "reward/mean", "valid_reward_mean": "reward/valid_mean"}
OURS = {
    "kl": "kl/probe_mean",
    "kl_stderr": "kl/probe_stderr",
    "kl_batch": "kl/reference",
    "entropy": "entropy/mean",
    "completion_tokens_max": "completion/train_tokens_max",
    "truncated_share": "completion/train_truncated_share",
    "no_spread_share": "groups/no_spread_share",
    "advantage_over_base": "reward/over_base_mean",
    "advantage_stderr": "reward/over_base_stderr",
    "learning_rate": "optim/lr",
    "grad_norm": "optim/grad_norm",
}
STEP_TIMES = {
    "sampling": "time/sampling",
    "grading": "time/grading",
    "training": "time/updating",
    "eval": "time/eval",
    "full_iteration": "time/step",
}
ALWAYS_TOLD = ("sample_parse_error", "invalid_variable_error", "other_error")
KINDS = {
    "python": ("python_grader_server_error", "python_grader_runtime_error"),
    "score_model": ("model_grader_server_error",),
}
"""Kinds of failure that are told also when there were none, by type of grader."""
SPLITS = ("train", "valid")


class Named(NamedTuple):
    """A grader, or a part of a multi grader, in an event's lists."""

    name: str
    type: str
    part: str | None
    """Key within the multi grader; None for the whole."""


def metrics_event(
    step: int, total_steps: int, values: Numbers, grader: Mapping[str, Any] | None = None
) -> tuple[str, dict[str, Any]]:
    """Message and data of a step's event. `grader` is the job's, as stored; without it lists are empty."""
    known = {name: value for name, value in values.items() if value is not None}
    return _message(step, total_steps, known), _data(step, total_steps, known, grader)


def reward_numbers(values: Numbers) -> dict[str, float]:
    """The flat numbers that OpenAI tells of a step, also on checkpoints."""
    known = {name: value for name, value in values.items() if value is not None}
    numbers = _renamed(NAMES | TWINS, known)
    if "completion/train_tokens_mean" in known:
        numbers["reasoning_tokens_mean"] = 0.0  # our models have no hidden reasoning
    return numbers


def _message(step: int, total_steps: int, known: Numbers) -> str:
    parts = {
        "train mean reward": "reward/mean",
        "full validation mean reward": "reward/valid_mean",
        "full validation mean parse error": "grades/valid_parse_error_share",
    }
    told = [f"{label}={known[name]:.2f}" for label, name in parts.items() if name in known]
    return f"Step {step}/{total_steps} , {', '.join(told) or 'no reward'}"


def _data(step: int, total_steps: int, known: Numbers, grader: Mapping[str, Any] | None) -> dict[str, Any]:
    whole, parts = _graders(grader)
    data: dict[str, Any] = {"step": step, "total_steps": total_steps, **reward_numbers(known)}
    if "reward/valid_mean" in known:
        data["valid_reasoning_tokens_mean"] = 0.0
    data["scores"] = _renamed(TWINS, known) | {"graders": [_scores(each, known) for each in parts]}
    data["errors"] = {"graders": [_errors(each, known) for each in parts]}
    data["usage"] = {"graders": [], "samples": _reasoning(known)}
    data["timing"] = {
        "step": _renamed(STEP_TIMES, known),
        "graders": [_latency(each, known) for each in whole],
    }
    data["model_graders_token_usage"] = {}
    return data | _renamed(OURS, known)


def _graders(grader: Mapping[str, Any] | None) -> tuple[list[Named], list[Named]]:
    """The grader as a whole, and what the lists tell of: its parts if it is a multi grader."""
    if grader is None:
        return [], []
    whole = [Named(str(grader.get("name", "")), str(grader["type"]), None)]
    if grader["type"] != "multi":
        return whole, whole
    parts = grader["graders"].items()
    return whole, [Named(str(part.get("name", key)), str(part["type"]), key) for key, part in parts]


def _scores(grader: Named, known: Numbers) -> dict[str, Any]:
    part = grader.part
    names = {"train_reward_mean": f"parts/train/{part}", "valid_reward_mean": f"parts/valid/{part}"}
    return {"name": grader.name, "type": grader.type, **_renamed(names if part else TWINS, known)}


def _errors(grader: Named, known: Numbers) -> dict[str, Any]:
    told: dict[str, Any] = {"name": grader.name, "type": grader.type}
    for split in SPLITS:
        count = known.get(f"grades/{split}_count")
        if not count:
            continue
        failed = dict.fromkeys((*ALWAYS_TOLD, *KINDS.get(grader.type, ())), 0.0)
        failed |= dict(_failures(grader, split, known))
        for kind, failures in failed.items():
            told[f"{split}_{kind}_mean"] = failures / count
            told[f"{split}_{kind}_count"] = failures
    return told


def _failures(grader: Named, split: str, known: Numbers) -> Iterator[tuple[str, float]]:
    """How often each kind of failure happened to this grader in the step."""
    start = f"part_failures/{split}/" if grader.part else f"failures/{split}/"
    for name, value in known.items():
        if name.startswith(start):
            kind, _, part = name.removeprefix(start).partition("/")
            if part == (grader.part or ""):
                yield kind, float(value)


def _latency(grader: Named, known: Numbers) -> dict[str, Any]:
    names = {f"{split}_execution_latency_mean": f"grades/{split}_seconds_mean" for split in SPLITS}
    return {"name": grader.name, "type": grader.type, **_renamed(names, known)}


def _reasoning(known: Numbers) -> dict[str, float]:
    measured = [split for split in SPLITS if f"grades/{split}_count" in known]
    return {f"{split}_reasoning_tokens_{kind}": 0.0 for split in measured for kind in ("mean", "count")}


def _renamed(names: Mapping[str, str], known: Numbers) -> dict[str, Any]:
    return {theirs: known[ours] for theirs, ours in names.items() if ours in known}
