"""Two graders over the same completions, compared: by hand, and against scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from workers.regrades.comparing import LEAST_ROWS, Side, compare

NAN = float("nan")


def side(*rewards: float, passes_from: float = 0.5, bounds: tuple[float, float] | None = (0.0, 1.0)) -> Side:
    return Side(np.array(rewards), passes_from, bounds)


def told(before: Side, after: Side, data_rows: list[str] | None = None) -> dict[str, Any]:
    rows = data_rows or [f"train-{n}" for n in range(len(before.rewards))]
    return compare(before, after, rows).told


def test_passes_agreement_and_kappa_by_hand() -> None:
    found = told(side(1, 1, 1, 0, 0, NAN), side(1, 1, 0, 0, 1, 1))
    assert found["passes"] == {"both": 2, "before_only": 1, "after_only": 1, "neither": 1}
    assert (found["completions"], found["compared"]) == (6, 5)
    assert found["agreement"] == {"value": 0.6, "low": None, "high": None}
    # by chance: 3/5 * 3/5 + 2/5 * 2/5 = 13/25
    assert found["kappa"]["value"] == pytest.approx((0.6 - 0.52) / 0.48)
    assert found["before"] == {"graded": 5, "mean_reward": 0.6, "passes_from": 0.5, "passed": 3}
    assert found["after"]["graded"] == 6


@pytest.mark.parametrize("n", [264, 1000, 2640])
def test_a_grader_that_always_says_the_same_agrees_by_chance_alone(n: int) -> None:
    before = np.arange(n) % 7 > 0
    kappa = told(side(*before.astype(float)), side(*np.zeros(n)))["kappa"]
    assert kappa == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_ranks_are_those_of_scipy_with_ties() -> None:
    random = np.random.default_rng(7)
    before = random.integers(0, 4, 200) / 3
    after = np.clip(before + random.integers(-1, 2, 200) / 3, 0, 1)
    found = told(side(*before), side(*after))
    assert found["rank_correlation"]["value"] == pytest.approx(spearmanr(before, after).statistic)


def test_differences_are_shares_of_each_graders_range() -> None:
    before, after = side(0, 10, bounds=(0, 10)), side(-1, 0, bounds=(-1, 1))
    compared = compare(before, after, ["train-0", "train-1"])
    assert compared.differences.tolist() == [0.0, -0.5]
    assert compared.told["mean_difference"]["value"] == -0.25
    assert compared.told["rows_that_differ_most"] == [
        {"data_row": "train-1", "completions": 1, "before": 10.0, "after": 0.0, "difference": -0.5}
    ]


def test_a_range_that_is_not_known_is_that_of_the_rewards() -> None:
    found = compare(side(2, 4, 6, bounds=None), side(0, 0.5, 1), ["a", "b", "c"])
    assert found.differences.tolist() == [0, 0, 0]
    alike = compare(side(3, 3, bounds=None), side(1, 1), ["a", "b"])
    assert alike.told["rank_correlation"]["value"] is None
    assert alike.told["kappa"]["value"] is None


def test_rows_that_differ_most_come_first_with_their_means() -> None:
    rows = ["train-0", "train-0", "train-1", "train-2"]
    found = told(side(1, 0, 0, 1), side(0, 0, 1, 1), rows)["rows_that_differ_most"]
    assert [(row["data_row"], row["difference"]) for row in found] == [("train-1", 1.0), ("train-0", -0.5)]


def test_intervals_hold_the_number_and_are_wider_where_completions_share_rows() -> None:
    random = np.random.default_rng(3)
    first = random.random(40)
    second = np.clip(first + random.normal(0, 0.3, 40), 0, 1)
    own = told(side(*first), side(*second))
    repeated = told(
        side(*np.repeat(first, 8)), side(*np.repeat(second, 8)), [f"train-{n // 8}" for n in range(320)]
    )
    for name in ("agreement", "kappa", "rank_correlation", "mean_difference"):
        one, eight = own[name], repeated[name]
        assert one["low"] < one["value"] < one["high"]
        assert eight["value"] == pytest.approx(one["value"])
        assert eight["high"] - eight["low"] == pytest.approx(one["high"] - one["low"], rel=0.25)


@pytest.mark.parametrize("n_rows", [LEAST_ROWS - 1, LEAST_ROWS])
def test_few_rows_have_no_interval(n_rows: int) -> None:
    rewards = [n / n_rows for n in range(n_rows)]
    found = told(side(*rewards), side(*rewards[::-1]))
    assert found["rank_correlation"]["value"] == pytest.approx(-1)
    assert (found["mean_difference"]["low"] is not None) == (n_rows >= LEAST_ROWS)


def test_without_a_common_reward_each_is_told_alone() -> None:
    found = told(side(1, NAN), side(NAN, 1))
    assert found["compared"] == 0
    assert "agreement" not in found


def test_the_same_completions_give_the_same_numbers() -> None:
    random = np.random.default_rng(5)
    pair = side(*random.random(30)), side(*random.random(30))
    assert told(*pair) == told(*pair)
