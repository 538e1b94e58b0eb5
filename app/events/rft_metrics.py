"""Gives the engine's numbers of a step (docs/metrics.md) the names that OpenAI's RFT events use.

Both of OpenAI's spellings are sent, since scripts read either. What was not measured is left out: keys about
validation appear on validation steps only.
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
MODEL_KINDS = (
    "model_grader_server_error",
    "model_grader_refusal_error",
    "model_grader_parse_error",
    "model_grader_exceeded_max_tokens_error",
)
KINDS = {
    "python": ("python_grader_server_error", "python_grader_runtime_error"),
    "score_model": MODEL_KINDS,
    "label_model": MODEL_KINDS,
    "endpoint": ("endpoint_grader_internal_error", "endpoint_grader_server_error"),
}
"""Kinds of failure that are told also when there were none, by type of grader."""
SPLITS = ("train", "valid")


class Named(NamedTuple):
    """A grader, or a part of a multi grader, in an event's lists."""

    name: str
    type: str
    part: str | None
    """The key within the multi grader; None for the whole."""
    model: str | None
    """The judge that it asks; None if it asks none."""


def metrics_event(
    step: int, total_steps: int, values: Numbers, grader: Mapping[str, Any] | None = None
) -> tuple[str, dict[str, Any]]:
    """Returns message and data of a step's event. `grader` is the job's, as stored; without it lists are
    empty."""
    known = {name: value for name, value in values.items() if value is not None}
    return _message(step, total_steps, known), _data(step, total_steps, known, grader)


def reward_numbers(values: Numbers) -> dict[str, float]:
    """Returns the flat numbers that OpenAI tells of a step, also on checkpoints."""
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
    parts = _graders(grader)
    data: dict[str, Any] = {"step": step, "total_steps": total_steps, **reward_numbers(known)}
    if "reward/valid_mean" in known:
        data["valid_reasoning_tokens_mean"] = 0.0
    data["scores"] = _renamed(TWINS, known) | {"graders": [_scores(each, known) for each in parts]}
    data["errors"] = {"graders": [_errors(each, known) for each in parts]}
    judges = [each for each in parts if each.model is not None]
    data["usage"] = {"graders": [_usage(each, known) for each in judges], "samples": _reasoning(known)}
    data["timing"] = {
        "step": _renamed(STEP_TIMES, known),
        "graders": [_latency(each, known) for each in parts],
    }
    data["model_graders_token_usage"] = _token_usage(known)
    return data | _renamed(OURS, known)


def _graders(grader: Mapping[str, Any] | None) -> list[Named]:
    """Returns what the lists tell of: the grader, or its parts if it is a multi grader."""
    if grader is None:
        return []
    if grader["type"] != "multi":
        return [_named(grader, None)]
    parts = grader["graders"]
    if isinstance(parts.get("type"), str):  # one bare grader
        parts = {parts["name"]: parts}
    return [_named(part, key) for key, part in parts.items()]


def _named(grader: Mapping[str, Any], part: str | None) -> Named:
    kind = str(grader["type"])
    model = str(grader["model"]) if kind in ("score_model", "label_model") else None
    return Named(str(grader.get("name", part or "")), kind, part, model)


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
    """Counts how often each kind of failure happened to this grader in the step."""
    start = f"part_failures/{split}/" if grader.part else f"failures/{split}/"
    for name, value in known.items():
        if name.startswith(start):
            kind, _, part = name.removeprefix(start).partition("/")
            if part == (grader.part or ""):
                yield kind, float(value)


def _latency(grader: Named, known: Numbers) -> dict[str, Any]:
    names = {
        f"{split}_execution_latency_mean": f"part_seconds/{split}/{grader.part}"
        if grader.part
        else f"grades/{split}_seconds_mean"
        for split in SPLITS
    }
    return {"name": grader.name, "type": grader.type, **_renamed(names, known)}


def _usage(grader: Named, known: Numbers) -> dict[str, Any]:
    """Returns the tokens of one judge, in the step and for each graded sample."""
    told: dict[str, Any] = {"name": grader.name, "type": grader.type, "model": grader.model}
    for split in SPLITS:
        samples = known.get(f"grades/{split}_count")
        if not samples:
            continue
        area, name = ("part_usage", grader.part) if grader.part else ("usage", grader.model)
        for kind in ("prompt_tokens", "completion_tokens"):
            count = float(known.get(f"{area}/{split}/{kind}/{name}", 0.0))
            told[f"{split}_{kind}_mean"] = count / samples
            told[f"{split}_{kind}_count"] = count
    return told


def _token_usage(known: Numbers) -> dict[str, dict[str, int]]:
    """Returns the tokens of each judge model in the step."""
    told: dict[str, dict[str, int]] = {}
    for split, theirs in (("train", "train"), ("valid", "eval")):
        for kind, model, count in _usage_numbers(f"usage/{split}", known):
            told.setdefault(model, {})[f"{theirs}_{kind}"] = count
    return told


def usage_so_far(values: Numbers) -> dict[str, Any] | None:
    """Returns a job's `usage_metrics` after a step: time in the training loop, and tokens of each judge
    model."""
    if "time/total" not in values:
        return None
    tokens: dict[str, dict[str, int]] = {}
    for kind, model, count in _usage_numbers("usage/total", values):
        tokens.setdefault(model, {})[kind] = count
    return {"training_seconds": values["time/total"], "grader_tokens": tokens}


def _usage_numbers(area: str, known: Numbers) -> Iterator[tuple[str, str, int]]:
    """Yields kind of token, model and count."""
    for name, value in known.items():
        if name.startswith(f"{area}/"):
            kind, _, model = name.removeprefix(f"{area}/").partition("/")
            yield kind, model, int(value)


def _reasoning(known: Numbers) -> dict[str, float]:
    measured = [split for split in SPLITS if f"grades/{split}_count" in known]
    return {f"{split}_reasoning_tokens_{kind}": 0.0 for split in measured for kind in ("mean", "count")}


def _renamed(names: Mapping[str, str], known: Numbers) -> dict[str, Any]:
    return {theirs: known[ours] for theirs, ours in names.items() if ours in known}
