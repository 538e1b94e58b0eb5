"""Which checkpoint is better than the base: an adjusted p that is right over all looks, and the choice."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.training.trust.selection import Judged, Look, choose, is_worse, judge


def looks(base, *others, kls=None):
    kls = kls or [0.1] * len(others)
    tuned = [Look(i + 1, kl, tuple(rows)) for i, (rows, kl) in enumerate(zip(others, kls, strict=True))]
    return [Look(0, 0.0, tuple(base)), *tuned]


def test_one_look_has_the_p_of_all_sign_flips_by_hand():
    differences = [0.5, 0.2, -0.1, 0.4, 0.3]
    flips = itertools.product([1, -1], repeat=5)
    sums = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in flips]
    expected = sum(total >= sum(differences) - 1e-12 for total in sums) / 32
    (found,) = judge(looks([0.0] * 5, differences), seed=1)
    assert found.p == expected
    assert found.mean == pytest.approx(0.26)
    assert found.n == 5


@pytest.mark.parametrize(("n", "p"), [(1, 1 / 2), (3, 1 / 8), (4, 1 / 16), (5, 1 / 32), (10, 1 / 1024)])
def test_rows_that_all_gain_the_same_prove_no_more_than_their_number(n, p):
    (found,) = judge(looks([0.2] * n, [0.9] * n), seed=1)
    assert found.p == p
    assert found.is_better == (n >= 5)
    assert (found.low, found.high) == (pytest.approx(0.7), pytest.approx(0.7))


def test_a_policy_that_equals_the_base_gains_nothing():
    (found,) = judge(looks([0.2, 0.4], [0.2, 0.4]), seed=1)
    assert (found.mean, found.p) == (0.0, 1.0)


def test_more_looks_make_the_same_gain_less_sure():
    rng = np.random.default_rng(3)
    base, tuned = rng.random(24), rng.random(24)
    alone = judge(looks(base, tuned + 0.25), seed=1)[0].p
    others = [rng.random(24) for _ in range(20)]
    among = judge(looks(base, tuned + 0.25, *others), seed=1)[0].p
    again = judge(looks(base, tuned + 0.25, *[tuned + 0.25] * 20), seed=1)[0].p
    assert alone < among < 20 * alone
    assert again == pytest.approx(alone)  # twenty copies are one look


def test_rows_without_a_reward_are_left_out_in_pairs():
    (found,) = judge(looks([0.5, 0.1, 0.9, None, 0.4], [1.0, 0.6, None, 0.2, 0.9]), seed=1)
    assert (found.n, found.mean) == (3, pytest.approx(0.5))
    assert judge(looks([None, 0.5], [0.3, None]), seed=1) == []
    assert judge([], seed=1) == []


@pytest.mark.parametrize("base_rate", [0.1, 0.5, 0.95])
def test_luck_alone_is_called_better_in_a_twentieth_of_runs(base_rate):
    """20 looks at 16 rows, twice each, where nothing was learnt: 300 runs, seeded."""
    rng = np.random.default_rng(7)
    false = 0
    for _ in range(300):
        rows = [rng.binomial(2, base_rate, 16) / 2 for _ in range(21)]
        false += any(one.is_better for one in judge(looks(*rows), seed=1))
    assert false <= 25  # 15 are expected, 25 in one of two hundred cases


def test_a_real_gain_is_seen():
    rng = np.random.default_rng(7)
    seen = 0
    for _ in range(100):
        base, *tuned = [rng.binomial(1, 0.3, 24) for _ in range(21)]
        better = [rng.binomial(1, 0.6, 24) for _ in range(20)]
        seen += any(one.is_better for one in judge(looks(base, *tuned, *better), seed=1))
    assert seen >= 65


def test_intervals_hold_the_true_gain_of_all_looks_together():
    rng = np.random.default_rng(11)
    low = high = 0
    for _ in range(300):
        base = rng.normal(0, 1, 24)
        found = judge(looks(base, *[base * 0.5 + rng.normal(0.3, 1, 24) for _ in range(5)]), seed=1)
        low += any(one.low > 0.3 for one in found)
        high += any(one.high < 0.3 for one in found)
    assert max(low, high) <= 30  # one-sided 5 %, of five looks together


@pytest.mark.parametrize("zeros", [0.1, 0.5])
def test_bounds_hold_where_many_rows_do_not_change(zeros):
    rng = np.random.default_rng(13)
    missed = 0
    for _ in range(300):
        changes = np.where(rng.random(24) < zeros, 0.0, rng.normal(0.4, 0.3, 24))
        (found,) = judge(looks(np.zeros(24), changes), seed=1)
        missed += found.low > 0.4 * (1 - zeros)
    assert missed <= 27  # one-sided 5 % are 15, and skewed differences a little more


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=6, max_size=6), min_size=2, max_size=6),
    st.integers(0, 2**31 - 1),
)
def test_every_p_is_a_chance_and_the_larger_gain_of_equal_spread_has_the_smaller(rows, seed):
    found = judge(looks(*rows), seed)
    assert found == judge(looks(*rows), seed)
    assert all(0 < one.p <= 1 and one.low <= one.mean <= one.high for one in found)
    assert all(math.isfinite(number) for one in found for number in one)


def judged(step, mean, p, kl, stderr=0.05):
    return Judged(step, kl, 24, mean, stderr, mean - 0.1, mean + 0.1, p)


@pytest.mark.parametrize(
    ("found", "kept", "step"),
    [
        pytest.param([judged(2, 0.3, 0.01, 1.0), judged(4, 0.2, 0.01, 0.5)], {2, 4}, 2, id="best"),
        pytest.param([judged(2, 0.3, 0.01, 1.0), judged(4, 0.26, 0.01, 0.5)], {2, 4}, 4, id="nearer"),
        pytest.param([judged(2, 0.3, 0.01, 1.0), judged(4, 0.26, 0.2, 0.5)], {2, 4}, 2, id="unsure"),
        pytest.param([judged(2, 0.3, 0.01, 1.0), judged(4, 0.2, 0.01, 0.5)], {4}, 4, id="dropped"),
        pytest.param([judged(2, 0.3, 0.01, 0.5), judged(4, 0.3, 0.01, 0.5)], {2, 4}, 2, id="earlier"),
        pytest.param([judged(2, 0.3, 0.06, 0.5)], {2}, None, id="none"),
    ],
)
def test_what_is_delivered(found, kept, step):
    chosen = choose(found, kept)
    assert (chosen and chosen.step) == step


def test_worse_is_said_only_beyond_doubt():
    rng = np.random.default_rng(5)
    base = rng.random(12)
    assert is_worse(looks(base, base - 0.3 - 0.1 * rng.random(12)), seed=1)
    assert not is_worse(looks(base, rng.random(12)), seed=1)
    assert not is_worse(looks(base), seed=1)
