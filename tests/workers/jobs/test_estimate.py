"""The estimated finish against histories whose end is known."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest

from workers.jobs.estimate import FinishEstimate


class Cost(NamedTuple):
    """Seconds of the parts of a run."""

    step: float
    validation: float
    saving: float
    telling: float
    warm_up: float
    noise: float


class Told(NamedTuple):
    step: int
    values: dict[str, float]
    at: float


def history(total: int, interval: int, cost: Cost) -> tuple[list[Told], float]:
    """What a run tells, and when its job is over: after the last checkpoint is saved."""
    draws = random.Random(7)
    clock, told = 0.0, []
    for step in range(total + 1):
        validates = step % interval == 0 or step == total
        jitter = 1 + cost.noise * draws.uniform(-1, 1)
        train = 0.0 if step == 0 else cost.step * jitter + (cost.warm_up if step == 1 else 0.0)
        values = {"time/step": train + cost.validation * validates}
        if validates:
            values["time/eval"] = cost.validation
        clock += values["time/step"]
        told.append(Told(step, values, clock))
        clock += cost.telling + cost.saving * validates
    return told, clock


CASES = [
    pytest.param(40, 5, Cost(1, 0, 0.5, 0.01, 5, 0.3), id="plain"),
    pytest.param(40, 5, Cost(1, 20, 3, 0.01, 5, 0.3), id="validations weigh more than steps"),
    pytest.param(40, 39, Cost(1, 60, 5, 0.01, 10, 0.2), id="all that weighs is at the end"),
    pytest.param(200, 25, Cost(4, 30, 10, 0.5, 30, 0.5), id="long"),
    pytest.param(20, 1, Cost(2, 3, 2, 0.1, 2, 0.3), id="each step validated"),
]


@pytest.mark.parametrize(("total", "interval", "cost"), CASES)
def test_after_a_tenth_the_rest_is_known_to_a_quarter(total: int, interval: int, cost: Cost) -> None:
    told, end = history(total, interval, cost)
    estimate = FinishEstimate(total, interval)
    for each in told:
        estimate.told(*each)
        left = estimate.seconds_left(each.step)
        if each.step >= max(2, total / 10):
            assert left is not None
            assert abs(left - (end - each.at)) <= 0.25 * (end - each.at), each.step


def test_without_the_cost_of_validations_the_estimate_would_be_wrong() -> None:
    """The control: the bound above is not met by the pace of plain steps."""
    told, end = history(40, 39, Cost(1, 60, 5, 0.01, 10, 0.2))
    estimate = FinishEstimate(40, 39)
    for each in told[:10]:
        estimate.told(each.step, {"time/step": each.values["time/step"]}, each.at)
    left = estimate.seconds_left(9)
    assert left is not None
    assert abs(left - (end - told[9].at)) > 0.25 * (end - told[9].at)


def test_an_attempt_that_resumes_knows_what_earlier_ones_took() -> None:
    told, end = history(40, 5, Cost(1, 20, 3, 0.01, 5, 0.3))
    estimate = FinishEstimate(40, 5)
    for each in told[:20]:
        estimate.learn(each.step, each.values)
    estimate.told(told[20].step, told[20].values, 0.0)
    left = estimate.seconds_left(20)
    assert left is not None
    assert abs(left - (end - told[20].at)) <= 0.25 * (end - told[20].at)


def test_nothing_is_said_before_a_step_was_timed() -> None:
    estimate = FinishEstimate(10, 5)
    estimate.told(0, {"time/step": 3.0, "time/eval": 3.0}, 0.0)
    assert estimate.seconds_left(0) is None
