"""Gives the engine's numbers of a step (docs/metrics.md) the names that OpenAI's RFT events use.

Both of OpenAI's spellings are sent, since scripts read either. What was not measured is left out: keys about
validation appear on validation steps only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from methods import metrics as names

Numbers = Mapping[str, Any]

NAMES = {
    "train_mean_reward": names.REWARD_MEAN,
    "full_valid_mean_reward": names.VALID_REWARD_MEAN,
    "full_valid_mean_parse_error": names.PARSE_ERROR_SHARE.format(split="valid"),
    "mean_unresponsive_rewards": names.UNGRADED_SHARE.format(split="train"),
    "completion_tokens_mean": names.COMPLETION_TOKENS_MEAN.format(split="train"),
    "reasoning_tokens_mean": names.REASONING_TOKENS_MEAN.format(split="train"),
}
TWINS = {"train_reward_mean": names.REWARD_MEAN, "valid_reward_mean": names.VALID_REWARD_MEAN}
OURS = {
    "kl": names.KL_PROBE_MEAN,
    "kl_stderr": names.KL_PROBE_STDERR,
    "kl_batch": names.KL_REFERENCE,
    "entropy": names.ENTROPY_MEAN,
    "completion_tokens_max": names.COMPLETION_TOKENS_MAX.format(split="train"),
    "truncated_share": names.TRUNCATED_SHARE.format(split="train"),
    "cut_in_thoughts_share": names.CUT_IN_THOUGHTS_SHARE.format(split="train"),
    "unparsed_share": names.UNPARSED_SHARE.format(split="train"),
    "no_spread_share": names.NO_SPREAD_SHARE,
    "advantage_over_base": names.OVER_BASE_MEAN,
    "advantage_stderr": names.OVER_BASE_STDERR,
    "advantage_low": names.OVER_BASE_LOW,
    "advantage_high": names.OVER_BASE_HIGH,
    "advantage_p": names.OVER_BASE_P,
    "fresh_reward_mean": names.FRESH_REWARD_MEAN,
    "greedy_reward_mean": names.GREEDY_REWARD_MEAN,
    "gold_reward_mean": names.GOLD_REWARD_MEAN,
    "gold_over_base": names.GOLD_OVER_BASE,
    "gold_gap": names.GOLD_GAP,
    "gold_gap_low": names.GOLD_GAP_LOW,
    "gold_gap_high": names.GOLD_GAP_HIGH,
    "learning_rate": names.LEARNING_RATE,
    "grad_norm": names.GRAD_NORM,
    "beta": names.BETA,
    "guard_kl_limit": names.GUARD_KL_LIMIT,
    "guard_actions": names.GUARD_ACTIONS,
    "guard_rollbacks": names.GUARD_ROLLBACKS,
}
ERRORS = {
    "kl": "kl_stderr",
    "advantage_over_base": "advantage_stderr",
    "valid_reward_mean": "valid_reward_stderr",
}
"""The standard error that belongs to a number."""
_OF_VALID = names.REASONING_TOKENS_MEAN.format(split="valid")
STEP_TIMES = {
    "sampling": names.TIME_SAMPLING,
    "grading": names.TIME_GRADING,
    "training": names.TIME_UPDATING,
    "eval": names.TIME_EVAL,
    "full_iteration": names.TIME_STEP,
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
    "rubric": MODEL_KINDS,
    "rank": MODEL_KINDS,
    "endpoint": ("endpoint_grader_internal_error", "endpoint_grader_server_error"),
}
"""Kinds of failure that are told also when there were none, by type of grader."""
SPLITS = ("train", "valid")
OF_EPISODES = {
    "episode_turns_mean": names.EPISODE_TURNS.format(split="train"),
    "valid_episode_turns_mean": names.EPISODE_TURNS.format(split="valid"),
    "episode_user_turns_mean": names.EPISODE_USER_TURNS.format(split="train"),
    "valid_episode_user_turns_mean": names.EPISODE_USER_TURNS.format(split="valid"),
    "episodes_lost": names.EPISODES_LOST.format(split="train"),
}
"""What only jobs with tools or a simulated user have."""
TOOL_NUMBERS = {
    "calls_mean": names.TOOL_CALLS,
    "tokens_mean": names.TOOL_TOKENS,
    "latency_mean": names.TOOL_SECONDS,
    "error_count": names.TOOL_ERRORS,
}
"""What an event tells of each tool, by split."""


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
    return _renamed(NAMES | TWINS, known)


def with_errors(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the numbers with a null for each standard error that is not known of what was measured."""
    return dict.fromkeys((error for name, error in ERRORS.items() if name in numbers), None) | dict(numbers)


def _message(step: int, total_steps: int, known: Numbers) -> str:
    parts = {
        "train mean reward": names.REWARD_MEAN,
        "full validation mean reward": names.VALID_REWARD_MEAN,
        "fresh mean reward": names.FRESH_REWARD_MEAN,
        "full validation mean parse error": names.PARSE_ERROR_SHARE.format(split="valid"),
    }
    told = [f"{label}={known[name]:.2f}" for label, name in parts.items() if name in known]
    return f"Step {step}/{total_steps} , {', '.join(told) or 'no reward'}"


def _data(step: int, total_steps: int, known: Numbers, grader: Mapping[str, Any] | None) -> dict[str, Any]:
    parts = _graders(grader)
    data: dict[str, Any] = {"step": step, "total_steps": total_steps, **reward_numbers(known)}
    data |= _renamed({"valid_reasoning_tokens_mean": _OF_VALID}, known)
    data["scores"] = _renamed(TWINS, known) | {"graders": [_scores(each, known) for each in parts]}
    data["errors"] = {"graders": [_errors(each, known) for each in parts]}
    judges = [each for each in parts if each.model is not None]
    data["usage"] = {"graders": [_usage(each, known) for each in judges], "samples": _reasoning(known)}
    data["timing"] = {
        "step": _renamed(STEP_TIMES, known),
        "graders": [_latency(each, known) for each in parts],
    }
    data["model_graders_token_usage"] = _token_usage(known)
    if tools := _tools(known):
        data["tools"] = tools
    return data | with_errors(_renamed(OURS | OF_EPISODES, known))


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
    judge = grader if "model" in grader else grader.get("judge") or {}
    model = str(judge["model"]) if "model" in judge else None
    return Named(str(grader.get("name", part or "")), kind, part, model)


def _scores(grader: Named, known: Numbers) -> dict[str, Any]:
    part = grader.part
    of_part = {
        "train_reward_mean": names.PART_MEAN.format(split="train", part=part),
        "valid_reward_mean": names.PART_MEAN.format(split="valid", part=part),
    }
    return {"name": grader.name, "type": grader.type, **_renamed(of_part if part else TWINS, known)}


def _errors(grader: Named, known: Numbers) -> dict[str, Any]:
    told: dict[str, Any] = {"name": grader.name, "type": grader.type}
    for split in SPLITS:
        count = known.get(names.GRADES_COUNT.format(split=split))
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
    start = _start(names.PART_FAILURES if grader.part else names.FAILURES, split)
    for name, value in known.items():
        if name.startswith(start):
            kind, _, part = name.removeprefix(start).partition("/")
            if part == (grader.part or ""):
                yield kind, float(value)


def _latency(grader: Named, known: Numbers) -> dict[str, Any]:
    latencies = {
        f"{split}_execution_latency_mean": names.PART_SECONDS.format(split=split, part=grader.part)
        if grader.part
        else names.GRADE_SECONDS.format(split=split)
        for split in SPLITS
    }
    return {"name": grader.name, "type": grader.type, **_renamed(latencies, known)}


def _usage(grader: Named, known: Numbers) -> dict[str, Any]:
    """Returns the tokens of one judge, in the step and for each graded sample."""
    told: dict[str, Any] = {"name": grader.name, "type": grader.type, "model": grader.model}
    for split in SPLITS:
        samples = known.get(names.GRADES_COUNT.format(split=split))
        if not samples:
            continue
        for kind in ("prompt_tokens", "completion_tokens"):
            own = names.USAGE.format(split=split, kind=kind, model=grader.model)
            if grader.part:
                own = names.PART_USAGE.format(split=split, kind=kind, part=grader.part)
            count = float(known.get(own, 0.0))
            told[f"{split}_{kind}_mean"] = count / samples
            told[f"{split}_{kind}_count"] = count
    return told


def _tools(known: Numbers) -> list[dict[str, Any]]:
    """Returns what is known of each tool's calls."""
    told: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        for kind, pattern in TOOL_NUMBERS.items():
            start = pattern.partition("{tool}")[0].format(split=split)
            for name in known:
                if name.startswith(start):
                    tool = name.removeprefix(start)
                    told.setdefault(tool, {"name": tool})[f"{split}_{kind}"] = known[name]
    return [told[tool] for tool in sorted(told)]


def _token_usage(known: Numbers) -> dict[str, dict[str, int]]:
    """Returns the tokens of each judge model in the step."""
    told: dict[str, dict[str, int]] = {}
    for split, theirs in (("train", "train"), ("valid", "eval")):
        for kind, model, count in _usage_numbers(_start(names.USAGE, split), known):
            if kind not in ("calls", "known"):  # OpenAI's events know tokens alone
                told.setdefault(model, {})[f"{theirs}_{kind}"] = count
    return told


def usage_so_far(values: Numbers) -> dict[str, Any] | None:
    """Returns a job's `usage_metrics` after a step: time in the training loop, and tokens of each judge
    model."""
    if names.TIME_TOTAL not in values:
        return None
    tokens: dict[str, dict[str, int]] = {}
    for kind, model, count in _usage_numbers(_start(names.TOTAL_USAGE), values):
        tokens.setdefault(model, {})[kind] = count
    return {"training_seconds": values[names.TIME_TOTAL], "grader_tokens": tokens}


def _start(pattern: str, split: str = "") -> str:
    """Returns how the names of a pattern begin, up to the kind of failure or token."""
    return pattern.partition("{kind}")[0].format(split=split)


def _usage_numbers(start: str, known: Numbers) -> Iterator[tuple[str, str, int]]:
    """Yields kind of token, model and count."""
    for name, value in known.items():
        if name.startswith(start):
            kind, _, model = name.removeprefix(start).partition("/")
            yield kind, model, int(value)


def _reasoning(known: Numbers) -> dict[str, float]:
    kinds = {"mean": names.REASONING_TOKENS_MEAN, "count": names.REASONING_TOKENS}
    theirs = {
        f"{split}_reasoning_tokens_{kind}": name.format(split=split)
        for split in SPLITS
        for kind, name in kinds.items()
    }
    return _renamed(theirs, known)


def _renamed(ours_by_theirs: Mapping[str, str], known: Numbers) -> dict[str, Any]:
    return {theirs: known[ours] for theirs, ours in ours_by_theirs.items() if ours in known}
