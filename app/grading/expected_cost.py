"""What a job's graders will ask of models, and what that costs: told before the job, by measured calls."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from app.grading.limits import calls_of, calls_per_minute_of
from app.settings import Settings
from graders import GraderSpec
from graders.types import TokenUsage, Usage, add_usages
from methods.auto import LEAST_UNSEEN, evaluation_rows, fresh_samples
from methods.train_config import TrainConfig

SECONDS_PER_MINUTE = 60
A_FEW = 3
"""From so many minutes on a time is told in them."""
GREEDY = 1
"""Greedy answers to each row at an evaluation."""


class Planned(NamedTuple):
    """The answers that a job would have graded, unless it ends early.

    Attributes:
        steps: updates of all its seeds and controls.
        answers: graded for training.
        prompts: groups that these come in.
        evaluations: the base's among them.
        evaluated: what each of them has graded, as (rows, answers to each).
    """

    steps: int
    answers: int
    prompts: int
    evaluations: int
    evaluated: Sequence[tuple[int, int]]


class Graded(Protocol):
    """Is a grade, or a trial of a grader, with what its calls took."""

    @property
    def usage(self) -> Usage: ...
    @property
    def seconds(self) -> float: ...


class Measured(NamedTuple):
    """What calls have taken that were made to try things.

    Attributes:
        usage: tokens and calls, by model.
        seconds: of one call, on the average; None where none was made.
    """

    usage: Usage
    seconds: float | None


class Expected(NamedTuple):
    """What a job's graders will ask for.

    Attributes:
        training: calls for training, by model.
        evaluation: calls at all evaluations, by model, those of the gold grader among them.
        usage: tokens, by model, of those that were measured.
        seconds: of all calls, as many at a time as the job asks; None where no call was measured.
        at_a_time: how many these are.
    """

    planned: Planned
    training: Mapping[str, float]
    evaluation: Mapping[str, float]
    usage: Usage
    seconds: float | None
    at_a_time: int

    @property
    def models(self) -> list[str]:
        """Returns the models that are asked."""
        return sorted({*self.training, *self.evaluation})

    @property
    def calls(self) -> int:
        """Returns how many calls there are in all."""
        return round(sum(self.training.values()) + sum(self.evaluation.values()))


def planned_answers(config: TrainConfig, n_train: int, n_valid: int) -> Planned:
    """Returns what a job with so many rows has graded."""
    steps, of_one = config.job_steps(n_train), config.total_steps(n_train)
    prompts = min(of_one * config.prompts_per_step, config.n_epochs * n_train)
    prompts = round(prompts * steps / of_one)
    judged = evaluation_rows(n_train, n_valid)
    evaluated = [(judged, evaluation_samples(config, n_train, n_valid))]
    if config.eval_temperature:
        evaluated.append((judged, GREEDY))
    if 0 < n_valid < LEAST_UNSEEN:
        evaluated.append((n_valid, config.eval_samples))
    evaluations = 1 + -(-steps // config.eval_interval)
    return Planned(steps, prompts * config.group_size, prompts, evaluations, evaluated)


def evaluation_samples(config: TrainConfig, n_train: int, n_valid: int) -> int:
    """Returns the answers to each row by which checkpoints are judged; greedy ones are all the same."""
    if config.eval_temperature == 0:
        return GREEDY
    if n_valid >= LEAST_UNSEEN:
        return config.eval_samples
    return fresh_samples(config.eval_samples, evaluation_rows(n_train, n_valid))


def measured_by(grades: Iterable[Graded]) -> Measured:
    """Returns what the calls behind some grades have taken; replies out of a cache are none."""
    asked = [grade for grade in grades if any(tokens.calls for tokens in grade.usage.values())]
    usage = add_usages(grade.usage for grade in asked)
    calls = sum(tokens.calls for tokens in usage.values())
    return Measured(usage, sum(grade.seconds for grade in asked) / calls if calls else None)


def expected_cost(
    config: TrainConfig,
    n_rows: Sequence[int],
    grader: GraderSpec,
    gold: GraderSpec | None,
    graded: Iterable[Graded],
    settings: Settings,
) -> Expected | None:
    """Returns what the graders of a job will ask for; None where they ask no model.

    `n_rows` are its training rows and those it validates by. `graded` are grades, or trials of the grader,
    whose calls say what one takes.
    """
    planned, measured = planned_answers(config, *n_rows), measured_by(graded)
    training = _times(calls_of(grader, settings, config.group_size), planned.prompts)
    evaluation: dict[str, float] = {}
    for rows, answers in planned.evaluated:
        asked = _times(calls_of(grader, settings, answers, base=answers), rows * planned.evaluations)
        evaluation = _together(evaluation, asked)
    if gold is not None:
        rows, answers = planned.evaluated[0]
        asked = _times(calls_of(gold, settings, answers, base=answers), rows * planned.evaluations)
        evaluation = _together(evaluation, asked)
    calls = _together(training, evaluation)
    if not calls:
        return None
    usage = {
        model: _scaled(tokens, calls[model]) for model, tokens in measured.usage.items() if model in calls
    }
    at_a_time = config.grade_concurrency * config.processes
    seconds = _seconds(calls, measured.seconds, at_a_time, settings)
    return Expected(planned, training, evaluation, usage, seconds, at_a_time)


def as_json(found: Expected, settings: Settings) -> dict[str, Any]:
    """Returns it as a preflight shows it."""
    models = [
        {
            "model": model,
            "training_calls": round(found.training.get(model, 0)),
            "evaluation_calls": round(found.evaluation.get(model, 0)),
            "prompt_tokens": found.usage[model].prompt_tokens if model in found.usage else None,
            "completion_tokens": found.usage[model].completion_tokens if model in found.usage else None,
            "has_price": model in settings.prices.models,
        }
        for model in found.models
    ]
    return {
        "sentence": in_words(found, settings),
        "calls": found.calls,
        "models": models,
        "cost": _cost(found, settings),
        "currency": settings.prices.currency,
        "seconds": found.seconds,
    }


def in_words(found: Expected, settings: Settings) -> str:
    """Returns what it comes to, as a sentence or three."""
    planned = found.planned
    of_one = sum(found.training.values()) / max(1, planned.answers)
    each = f"{planned.answers / planned.steps:.3g} answers x {of_one:.2g} call{'' if of_one == 1 else 's'}"
    said = (
        f"Graders ask {' and '.join(found.models)} about {found.calls:,} times:"
        f" {planned.steps:,} steps x {each}, and about {sum(found.evaluation.values()):,.0f} calls at"
        f" {planned.evaluations:,} evaluations."
    )
    return " ".join([said, *_tokens_in_words(found, settings), *_time_in_words(found)])


def _tokens_in_words(found: Expected, settings: Settings) -> list[str]:
    tokens = sum(used.total_tokens for used in found.usage.values())
    said = []
    if tokens:
        calls = sum(used.calls for used in found.usage.values())
        cost = _cost(found, settings)
        money = "" if cost is None else f", about {cost:,.2g} {settings.prices.currency} by CHERRY_PRICES"
        said.append(
            f"At the measured {tokens / calls:,.0f} tokens a call that is about {tokens:,} tokens{money}."
        )
    if unpriced := settings.prices.unpriced(found.models):
        said.append(f"CHERRY_PRICES has no price of {' and '.join(unpriced)}.")
    if unmeasured := sorted(set(found.models) - set(found.usage)):
        said.append(f"No call of {' and '.join(unmeasured)} was measured.")
    return said


def _time_in_words(found: Expected) -> list[str]:
    if found.seconds is None:
        return []
    minutes = found.seconds / SECONDS_PER_MINUTE
    time = f"{minutes:,.0f} minutes" if minutes >= A_FEW else f"{found.seconds:,.0f} seconds"
    about = f"about {time}" if found.seconds >= 1 else "less than a second"
    return [f"All calls take {about}, up to {found.at_a_time} at a time."]


def _cost(found: Expected, settings: Settings) -> float | None:
    """Returns the money for the models with a price; None where none has one."""
    priced = [model for model in found.usage if model in settings.prices.models]
    return settings.prices.cost(found.usage, 0.0) if priced else None


def _seconds(
    calls: Mapping[str, float], of_one: float | None, at_a_time: int, settings: Settings
) -> float | None:
    """Returns the time of all calls: so many at a time, and no more a minute than a judge's limit."""
    if of_one is None:
        return None
    paced = [
        SECONDS_PER_MINUTE * count / limit
        for model, count in calls.items()
        if (limit := calls_per_minute_of(model, settings)) is not None
    ]
    return max([sum(calls.values()) * of_one / at_a_time, *paced])


def _scaled(tokens: TokenUsage, calls: float) -> TokenUsage:
    """Returns the tokens of so many calls, by those of the calls that were measured."""
    times = calls / tokens.calls if tokens.calls else 0.0
    return TokenUsage(
        math.ceil(tokens.prompt_tokens * times),
        math.ceil(tokens.completion_tokens * times),
        math.ceil(tokens.cached_tokens * times),
        math.ceil(calls),
    )


def _times(calls: Mapping[str, float], number: int) -> dict[str, float]:
    return {model: count * number for model, count in calls.items()}


def _together(some: Mapping[str, float], more: Mapping[str, float]) -> dict[str, float]:
    return {model: some.get(model, 0.0) + more.get(model, 0.0) for model in {**some, **more}}
