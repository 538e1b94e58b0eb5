"""The numbers of a step: names are `area/thing`, all in docs/metrics.md; what is unknown is left out."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

from graders import Grade, TokenUsage
from graders.types import add_usages
from workers.training.advantages import groups_with_spread
from workers.training.base.recorder import Phase, Recorder
from workers.training.base.types import Group, Split
from workers.training.evaluate import Estimate
from workers.training.rewards import reward_of, rewards_of

Timed = Literal["sampling", "grading", "grading_busy", "waiting", "updating", "eval"]
TELL_AGAIN_SECONDS = 60.0
"""Pause between two signs of life in one phase."""


class Clock:
    """Times the phases of one step and tells the recorder which one it is in; without one it only times."""

    def __init__(self, recorder: Recorder | None = None) -> None:
        self._recorder = recorder
        self._start = time.perf_counter()
        self._told = time.monotonic()
        self.seconds: dict[Timed, float] = {}

    @contextmanager
    def phase(self, phase: Phase, timed: Timed) -> Iterator[None]:
        """Everything inside counts as `time/<timed>`."""
        if self._recorder is not None:
            self._recorder.phase(phase)
            self._told = time.monotonic()
        start = time.perf_counter()
        yield
        self.add({timed: time.perf_counter() - start})

    def alive(self, phase: Phase) -> None:
        """Say again, once in a while, that the run is in this phase: for one in which something goes on."""
        if self._recorder is not None and time.monotonic() - self._told > TELL_AGAIN_SECONDS:
            self._told = time.monotonic()
            self._recorder.phase(phase)

    def add(self, seconds: Mapping[Timed, float]) -> None:
        """Count what was timed elsewhere."""
        for timed, value in seconds.items():
            self.seconds[timed] = self.seconds.get(timed, 0.0) + value

    def metrics(self) -> dict[str, float]:
        """Seconds of each phase, and of the whole step so far."""
        seconds = {f"time/{name}": value for name, value in self.seconds.items()}
        return {**seconds, "time/step": time.perf_counter() - self._start}


def train_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Rewards, grades and lengths of a step's rollouts."""
    rewards = rewards_of(groups)
    values = _mean_and_std("reward", rewards.values[rewards.graded].tolist())
    no_spread = ~groups_with_spread(rewards.values, rewards.graded)
    values["groups/no_spread_share"] = float(no_spread.double().mean())
    values["tokens/prompt"] = float(sum(len(group.prompt.tokens) for group in groups))
    return {**values, **_split_metrics("train", groups)}


def valid_metrics(
    groups: Sequence[Group], reward: Estimate | None, difference: Estimate | None
) -> dict[str, float]:
    """The same for a validation, with its paired difference to the base."""
    values = _estimate("reward/valid", reward) | _estimate("reward/over_base", difference)
    return {**values, **_split_metrics("valid", groups)}


def kl_metrics(kl: Estimate) -> dict[str, float]:
    """The exact KL on the probe set."""
    return _estimate("kl/probe", kl)


def _split_metrics(split: Split, groups: Sequence[Group]) -> dict[str, float]:
    grades = [grade for group in groups for grade in group.grades]
    completions = [completion for group in groups for completion in group.completions]
    lengths = [len(completion.tokens) for completion in completions]
    parse_errors = [g.failure is not None and g.failure.kind.is_completions_fault for g in grades]
    values = {
        f"grades/{split}_count": float(len(grades)),
        f"grades/{split}_parse_error_share": _mean(parse_errors),
        f"grades/{split}_ungraded_share": _mean([reward_of(grade) is None for grade in grades]),
        f"grades/{split}_seconds_mean": _mean([grade.seconds for grade in grades]),
        f"completion/{split}_tokens_mean": _mean(lengths),
        f"completion/{split}_tokens_max": float(max(lengths)),
        f"completion/{split}_truncated_share": _mean([c.finish_reason == "length" for c in completions]),
        f"tokens/{split}_sampled": float(sum(lengths)),
    }
    values |= _part_metrics(split, grades) | _usage_metrics(split, grades)
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _part_metrics(split: Split, grades: Sequence[Grade]) -> dict[str, float]:
    """Scores, times and failures of the parts, and failures of the whole."""
    lists: dict[str, list[float]] = {}
    failures: Counter[str] = Counter()
    for grade in grades:
        for name, score in grade.parts.items():
            lists.setdefault(f"parts/{split}/{name}", []).append(score)
        for name, seconds in grade.part_seconds.items():
            lists.setdefault(f"part_seconds/{split}/{name}", []).append(seconds)
        if grade.failure is not None:
            failures[f"failures/{split}/{grade.failure.kind}"] += 1
        for name, failure in grade.part_failures.items():
            failures[f"part_failures/{split}/{failure.kind}/{name}"] += 1
    means = {name: _mean(values) for name, values in lists.items()}
    return means | {name: float(count) for name, count in failures.items()}


def _usage_metrics(split: Split, grades: Sequence[Grade]) -> dict[str, float]:
    """Tokens that the graders' models have read and written: by model, and by part."""
    values: dict[str, float] = {}
    for model, usage in add_usages(grade.usage for grade in grades).items():
        values |= _tokens(f"usage/{split}", model, usage)
    parts: dict[str, TokenUsage] = {}
    for grade in grades:
        for part, by_model in grade.part_usage.items():
            parts[part] = sum(by_model.values(), start=parts.get(part, TokenUsage()))
    for part, usage in parts.items():
        values |= _tokens(f"part_usage/{split}", part, usage)
    return values


def total_usage_metrics(usage: Mapping[str, TokenUsage]) -> dict[str, float]:
    """The same since the run began, by model."""
    values: dict[str, float] = {}
    for model, tokens in usage.items():
        values |= _tokens("usage/total", model, tokens)
    return values


def _tokens(area: str, name: str, usage: TokenUsage) -> dict[str, float]:
    """`name` last: a model's may hold slashes."""
    return {f"{area}/{kind}/{name}": float(count) for kind, count in vars(usage).items()}


def _mean_and_std(name: str, values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    mean = _mean(values)
    std = math.sqrt(_mean([(value - mean) ** 2 for value in values]))
    return {f"{name}/mean": mean, f"{name}/std": std, f"{name}/min": min(values), f"{name}/max": max(values)}


def _estimate(name: str, found: Estimate | None) -> dict[str, float]:
    if found is None:
        return {}
    values = {f"{name}_mean": found.mean}
    return values if found.stderr is None else {**values, f"{name}_stderr": found.stderr}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
