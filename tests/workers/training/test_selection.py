"""Measuring the policy, and choosing what is kept."""

import math
from pathlib import Path

import pytest

from tests.workers.training.support import make_config
from workers.training.base.types import Checkpoint
from workers.training.checkpoints import deliverable, to_keep
from workers.training.evaluate import Estimate, estimate


def checkpoint(step, kl=0.0):
    return Checkpoint(step, 1, Path(f"step_{step:06d}"), kl, 0.0, None, None, None, None)


def test_the_base_the_best_and_the_one_to_deliver_are_kept():
    saved = [checkpoint(0), checkpoint(2), checkpoint(4), checkpoint(6), checkpoint(8, kl=0.5)]
    gains = {2: 0.1, 4: 0.4, 6: 0.2, 8: 0.4}
    assert [c.step for c in to_keep(saved, 2, gains, chosen=2)] == [0, 2, 4, 8]
    assert [c.step for c in to_keep(saved, 1, gains)] == [0, 4]
    assert [c.step for c in to_keep(saved, 2, {})] == [0, 6, 8]


def test_a_model_that_forgot_is_not_delivered_where_the_guard_acts():
    saved = [checkpoint(0), checkpoint(2), checkpoint(4)]
    saved[1].extra["canary_over_base"], saved[2].extra["canary_over_base"] = 0.75, 0.76
    assert list(deliverable(saved, make_config("m", guard="act"))) == [0, 2]
    assert list(deliverable(saved, make_config("m", guard="warn"))) == [0, 2, 4]
    saved[1].extra["canary_over_base_stderr"] = 0.01  # now it may have forgotten more
    assert list(deliverable(saved, make_config("m", guard="act"))) == [0]


def test_estimates_skip_gaps():
    found = estimate([1.0, None, 0.0, 1.0, 0.0])
    assert found == Estimate(0.5, pytest.approx(math.sqrt(1 / 3 / 4)), 4)
    assert estimate([2.0, None]) == Estimate(2.0, None, 1)
    assert estimate([None]) is None
