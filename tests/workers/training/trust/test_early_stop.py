"""When evaluations are level: by hand, and the rule's errors on simulated runs."""

import numpy as np
import pytest

from workers.training.trust.early_stop import Level, find_level

UP = [[0.1 * k, 0.1 * k + 0.2] for k in range(8)]


def flat(n, value=0.7):
    return [[value, value + 0.2]] * n


def test_a_run_that_was_level_for_as_many_evaluations_is_level():
    evaluations = [[0.1, 0.3], *flat(8)]
    assert find_level(evaluations, 8) == Level(8, pytest.approx(0.8), pytest.approx(0.0))
    assert find_level(evaluations[:-1], 8) is None, "the gain is in the newest eight"


def test_a_run_that_gains_is_not_level_and_one_that_falls_is():
    assert find_level(UP, 8) is None
    assert find_level([[0.0, 0.0], *UP[::-1]], 8).trend == pytest.approx(-0.7)


def test_the_longer_a_run_has_gained_the_longer_it_must_be_level():
    gained = [[0.02 * k, 0.02 * k] for k in range(20)]
    fewest = next(n for n in range(40) if find_level([*gained, *[gained[-1]] * n], 8))
    assert fewest == 18  # as many as there were before, but for the first and the last of the climb


def test_a_run_without_any_gain_is_waited_for_longer():
    assert find_level(flat(11), 8) is None
    assert find_level(flat(12), 8) == Level(12, pytest.approx(0.8), pytest.approx(0.0))


def test_where_every_prompt_is_solved_fewer_evaluations_are_enough():
    evaluations = [[0.1, 0.3], *flat(4)]
    assert find_level(evaluations, 8) is None
    assert find_level(evaluations, 8, is_solved=True) == Level(4, pytest.approx(0.8), pytest.approx(0.0))
    assert find_level(UP, 8, is_solved=True) is None


def test_a_trend_below_what_a_grader_tells_apart_is_none():
    creeping = [[0.0, 0.0], *[[0.5 + 1e-5 * k, 0.5] for k in range(20)]]
    assert find_level(creeping, 8) is None
    assert find_level(creeping, 8, least=1e-3) is not None


def test_rows_that_could_not_be_graded_are_left_out():
    evaluations = [[0.1, 0.3], *flat(8)]
    evaluations[5] = [None, 0.9]
    assert find_level(evaluations, 8) == Level(8, pytest.approx(0.9), pytest.approx(0.0))
    evaluations[6] = [0.7, None]
    assert find_level(evaluations, 8) is None
    assert find_level([], 8) is None


def simulated(curve, rng, rows=24, samples=8):
    """Rewards of rows whose chance of a right answer follows a curve; rows differ."""
    logits = np.log(curve / (1 - curve))[:, None] + rng.normal(0, 1.5, rows)
    return (rng.binomial(samples, 1 / (1 + np.exp(-logits))) / samples).tolist()


def stops_at(curve, rng):
    rewards = simulated(curve, rng)
    return next((k for k in range(1, len(curve)) if find_level(rewards[: k + 1], 8, least=1e-3)), len(curve))


def test_of_simulated_runs_level_ones_end_and_slow_ones_go_on():
    """The trial of docs/decisions/0028-early-stop.md, in small."""
    rng = np.random.default_rng(1)
    steps = np.arange(61)
    fast = 0.2 + 0.6 * (1 - np.exp(-steps / 1.5))
    slow = np.clip(0.1 + 0.02 * steps, 0, 0.9)
    late = np.clip(0.1 + 0.05 * (steps - 6), 0.1, 0.9)
    assert np.median([stops_at(fast, rng) for _ in range(20)]) <= 16
    assert all(stops_at(curve, rng) > 12 for curve in (slow, late) for _ in range(20))
    assert np.mean([slow[min(60, stops_at(slow, rng))] for _ in range(20)]) > 0.85
