"""Two series of the same rows, compared: by hand, and how often luck is taken for a difference."""

from __future__ import annotations

import numpy as np
import pytest

from methods.paired import compare_two


def test_two_series_compare_as_by_hand():
    """Five gains of 1 beside nothing: of 32 flips one has as large a sum, and one as small a one."""
    found = compare_two([0.0] * 5 + [1.0, None], [1.0] * 5 + [1.0, 1.0])
    assert found is not None
    assert (found.n, found.mean) == (6, pytest.approx(5 / 6))
    assert found.p == pytest.approx(2 / 32)
    assert found.low < found.mean < found.high


def test_it_is_the_same_the_other_way_round():
    before, after = [0.0, 1.0, 0.0, 0.5, 0.0, 0.2], [1.0, 1.0, 0.5, 1.0, 0.1, 0.0]
    forth, back = compare_two(before, after), compare_two(after, before)
    assert forth is not None
    assert back is not None
    assert (back.mean, back.p) == (pytest.approx(-forth.mean), forth.p)
    assert (back.low, back.high) == (pytest.approx(-forth.high), pytest.approx(-forth.low))


def test_rows_that_only_one_has_tell_nothing():
    assert compare_two([None, 1.0], [1.0, None]) is None


def test_equal_series_differ_by_nothing():
    found = compare_two([1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0])
    assert found is not None
    assert (found.mean, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_luck_is_taken_for_a_difference_in_one_case_of_twenty():
    """400 pairs of series without a difference; the bounds hold a binomial count with 99.9 %."""
    chance = np.random.default_rng(3)
    claims = misses = 0
    for _ in range(400):
        before, after = (chance.integers(0, 2, 40).astype(float).tolist() for _ in range(2))
        found = compare_two(before, after)
        assert found is not None
        claims += found.p <= 0.05
        misses += not found.low <= 0 <= found.high
    assert claims <= 37
    assert misses <= 37
