"""The numbers of a step, under the names of methods/metrics.py; what is unknown is left out."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

from graders import Grade, TokenUsage
from graders.types import add_usages
from methods import metrics as names
from workers.training.advantages import groups_with_spread
from workers.training.base.recorder import Phase, Recorder
from workers.training.base.types import Group, Split
from workers.training.evaluate import ROWS_FOR_AN_ERROR, Estimate, Evaluation
from workers.training.rewards import rewards_of
from workers.training.trust.selection import Judged

Timed = Literal["sampling", "grading", "grading_busy", "waiting", "updating", "eval"]
TIMES: dict[Timed, str] = {
    "sampling": names.TIME_SAMPLING,
    "grading": names.TIME_GRADING,
    "grading_busy": names.TIME_GRADING_BUSY,
    "waiting": names.TIME_WAITING,
    "updating": names.TIME_UPDATING,
    "eval": names.TIME_EVAL,
}

TELL_AGAIN_SECONDS = 60.0
"""The pause, in seconds, between two signs of life in one phase. Chosen, not measured: often enough for a
person, and far below the half hour after which a silent phase counts as hung.
"""


class Clock:
    """Times the phases of one step and tells the recorder, if there is one, which one it is in."""

    def __init__(
        self, recorder: Recorder | None = None, tell_again_seconds: float = TELL_AGAIN_SECONDS
    ) -> None:
        self._recorder = recorder
        self._tell_again_seconds = tell_again_seconds
        self._start = time.perf_counter()
        self._told = time.monotonic()
        self.seconds: dict[Timed, float] = {}

    @contextmanager
    def phase(self, phase: Phase, timed: Timed) -> Iterator[None]:
        """Counts everything inside as `time/<timed>`."""
        if self._recorder is not None:
            self._recorder.phase(phase)
            self._told = time.monotonic()
        start = time.perf_counter()
        yield
        self.add({timed: time.perf_counter() - start})

    def alive(self, phase: Phase) -> None:
        """Says again, once in a while, that the run is in this phase: for one in which something goes on."""
        if self._recorder is not None and time.monotonic() - self._told > self._tell_again_seconds:
            self._told = time.monotonic()
            self._recorder.phase(phase)

    def add(self, seconds: Mapping[Timed, float]) -> None:
        """Counts seconds that were timed elsewhere."""
        for timed, value in seconds.items():
            self.seconds[timed] = self.seconds.get(timed, 0.0) + value

    def metrics(self) -> dict[str, float]:
        """Returns the seconds of each phase, and of the whole step so far."""
        seconds = {TIMES[timed]: value for timed, value in self.seconds.items()}
        return {**seconds, names.TIME_STEP: time.perf_counter() - self._start}


def train_metrics(groups: Sequence[Group], least_spread: float = 0.0) -> dict[str, float]:
    """Returns rewards, grades and lengths of a step's rollouts.

    Rewards of a group that differ by at most `least_spread`, in grader units, count as equal.
    """
    rewards = rewards_of(groups)
    values = _reward_metrics(rewards.values[rewards.graded].tolist())
    no_spread = ~groups_with_spread(rewards.values, rewards.graded, least_spread)
    values[names.NO_SPREAD_SHARE] = float(no_spread.double().mean())
    values[names.PROMPT_TOKENS] = float(sum(len(group.prompt.tokens) for group in groups))
    return {**values, **_split_metrics("train", groups)}


def evaluation_metrics(found: Evaluation, judged: Judged | None) -> dict[str, float]:
    """Returns the numbers of an evaluation, with its paired difference to the base."""
    values = _estimate(names.VALID_REWARD_MEAN, names.VALID_REWARD_STDERR, found.reward("valid"))
    values |= _estimate(names.FRESH_REWARD_MEAN, names.FRESH_REWARD_STDERR, found.reward("fresh"))
    if (greedy := found.reward("greedy")) is not None:
        values[names.GREEDY_REWARD_MEAN] = greedy.mean
    if judged is not None:
        is_sure = judged.n >= ROWS_FOR_AN_ERROR
        gain = Estimate(judged.mean, judged.stderr if is_sure else None, judged.n)
        values |= _estimate(names.OVER_BASE_MEAN, names.OVER_BASE_STDERR, gain)
        values |= {
            names.OVER_BASE_LOW: judged.low,
            names.OVER_BASE_HIGH: judged.high,
            names.OVER_BASE_P: judged.p,
        }
    for split, groups in found.groups.items():
        if split == "valid":
            values |= _split_metrics(split, groups)
        else:
            values |= _usage_metrics(split, [grade for group in groups for grade in group.grades])
    return values


def _split_metrics(split: Split, groups: Sequence[Group]) -> dict[str, float]:
    grades = [grade for group in groups for grade in group.grades]
    completions = [completion for group in groups for completion in group.completions]
    lengths = [completion.n_sampled for completion in completions]
    parse_errors = [g.failure is not None and g.failure.kind.is_completions_fault for g in grades]
    of_split = {
        names.GRADES_COUNT: float(len(grades)),
        names.PARSE_ERROR_SHARE: _mean(parse_errors),
        names.UNGRADED_SHARE: _mean([grade.reward is None for grade in grades]),
        names.GRADE_SECONDS: _mean([grade.seconds for grade in grades]),
        names.COMPLETION_TOKENS_MEAN: _mean(lengths),
        names.COMPLETION_TOKENS_MAX: float(max(lengths)),
        names.TRUNCATED_SHARE: _mean([c.finish_reason == "length" for c in completions]),
        names.SAMPLED_TOKENS: float(sum(lengths)),
    }
    values = {name.format(split=split): value for name, value in of_split.items()}
    values |= _part_metrics(split, grades) | _usage_metrics(split, grades)
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _part_metrics(split: Split, grades: Sequence[Grade]) -> dict[str, float]:
    """Returns scores, times and failures of the parts, and failures of the whole."""
    lists: dict[str, list[float]] = {}
    failures: Counter[str] = Counter()
    for grade in grades:
        for part, score in grade.parts.items():
            lists.setdefault(names.PART_MEAN.format(split=split, part=part), []).append(score)
        for part, seconds in grade.part_seconds.items():
            lists.setdefault(names.PART_SECONDS.format(split=split, part=part), []).append(seconds)
        if grade.failure is not None:
            failures[names.FAILURES.format(split=split, kind=grade.failure.kind)] += 1
        for part, failure in grade.part_failures.items():
            failures[names.PART_FAILURES.format(split=split, kind=failure.kind, part=part)] += 1
    means = {name: _mean(values) for name, values in lists.items()}
    return means | {name: float(count) for name, count in failures.items()}


def _usage_metrics(split: Split, grades: Sequence[Grade]) -> dict[str, float]:
    """Returns the tokens that the graders' models have read and written: by model, and by part."""
    values: dict[str, float] = {}
    for model, usage in add_usages(grade.usage for grade in grades).items():
        for kind, count in vars(usage).items():
            values[names.USAGE.format(split=split, kind=kind, model=model)] = float(count)
    parts: dict[str, TokenUsage] = {}
    for grade in grades:
        for part, by_model in grade.part_usage.items():
            parts[part] = sum(by_model.values(), start=parts.get(part, TokenUsage()))
    for part, usage in parts.items():
        for kind, count in vars(usage).items():
            values[names.PART_USAGE.format(split=split, kind=kind, part=part)] = float(count)
    return values


def total_usage_metrics(usage: Mapping[str, TokenUsage]) -> dict[str, float]:
    """Returns the tokens since the run began, by model."""
    return {
        names.TOTAL_USAGE.format(kind=kind, model=model): float(count)
        for model, tokens in usage.items()
        for kind, count in vars(tokens).items()
    }


def _reward_metrics(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    mean = _mean(values)
    std = math.sqrt(_mean([(value - mean) ** 2 for value in values]))
    return {
        names.REWARD_MEAN: mean,
        names.REWARD_STD: std,
        names.REWARD_MIN: min(values),
        names.REWARD_MAX: max(values),
    }


def _estimate(mean: str, stderr: str, found: Estimate | None) -> dict[str, float]:
    if found is None:
        return {}
    values = {mean: found.mean}
    return values if found.stderr is None else {**values, stderr: found.stderr}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
