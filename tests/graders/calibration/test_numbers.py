"""Shares, means and rank correlations with their intervals are those of the textbooks, and of scipy."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from graders.calibration.numbers import T, mean, pooled_deviation, rank_correlation, share
from graders.calibration.people import agreement, agreement_in_groups
from graders.intervals import Interval

UNIT = Interval(0.0, 1.0)


def test_a_share_has_wilsons_interval() -> None:
    for hits, n in ((16, 20), (0, 7), (7, 7), (1, 100)):
        found, known = share(hits, n), stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert found is not None
        assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-4)
    assert share(0, 0) is None


def test_a_mean_has_students_interval() -> None:
    values = [0.1, 0.4, -0.2, 0.3, 0.3]
    found = mean(values)
    known = stats.t.interval(0.95, 4, loc=sum(values) / 5, scale=stats.sem(values))
    assert found is not None
    assert (found.low, found.high) == pytest.approx(known, abs=1e-3)
    assert pytest.approx([stats.t.ppf(0.975, freedom) for freedom in range(1, 16)], abs=0.006) == T
    assert mean([1.0]) is None


def test_a_rank_correlation_is_spearmans_with_ties() -> None:
    luck = random.Random(0)
    first = [luck.randint(1, 5) for _ in range(40)]
    second = [value + luck.gauss(0, 2) for value in first]
    found = rank_correlation(first, second)
    assert found is not None
    assert found.value == pytest.approx(stats.spearmanr(first, second).statistic)
    assert found.low < found.value < found.high
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None


def test_a_deviation_is_pooled_within_groups() -> None:
    assert pooled_deviation([[0, 2], [10, 12], [5]]) == pytest.approx(2**0.5)
    assert pooled_deviation([[1], [2]]) is None


def test_people_may_score_on_a_scale_of_their_own() -> None:
    pairs = [(0.0, 1.0), (0.25, 3.0), (0.5, 3.0), (1.0, 5.0), (1.0, 2.0)]
    found = agreement(pairs, UNIT)
    assert found is not None
    assert (found.statistic, found.scale, found.step) == ("within_one_step", (1.0, 5.0), 1.0)
    assert found.share.value == 0.8
    assert found.constant_share == 0.8  # always 2


@pytest.mark.parametrize(("threshold", "share_"), [(None, 0.75), (0.3, 1.0)])
def test_two_scores_are_pass_and_fail(threshold: float | None, share_: float) -> None:
    found = agreement([(0.0, 0.0), (0.2, 0.0), (0.4, 1.0), (0.9, 1.0)], UNIT, threshold=threshold)
    assert found is not None
    assert (found.statistic, found.share.value, found.constant_share) == ("pass_fail", share_, 0.5)


def test_groups_are_compared_within_themselves() -> None:
    groups = [[(0.9, 1.0), (0.8, 2.0)], [(0.1, 4.0), (0.2, 5.0)], [(0.5, 3.0), (0.5, 3.0)]]
    found = agreement_in_groups(groups)
    assert found is not None
    assert (found.statistic, found.share.value, found.share.n) == ("same_order", 0.5, 2)
    assert agreement_in_groups([groups[2]]) is None
