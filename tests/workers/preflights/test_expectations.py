"""What samples promise, by hand and by simulation."""

from __future__ import annotations

import pytest

from methods.rewards import Scale
from workers.preflights.expectations import expected_signal, shares

UNIT = Scale(0.0, 1.0)


def right(n: int, of: int = 8) -> list[float]:
    return [1.0] * n + [0.0] * (of - n)


def test_shares_of_prompts_by_hand() -> None:
    found = shares([right(0), right(1), right(7), right(8), right(0)], UNIT)
    assert found == pytest.approx((0.4, 0.4, 0.2))


@pytest.mark.parametrize(
    ("groups", "group_size", "signal"),
    [
        pytest.param([right(4)], 2, 0.5, id="even"),
        pytest.param([right(2)], 8, 1 - 0.75**8 - 0.25**8, id="a-quarter"),
        pytest.param([right(0), right(8)], 8, 0.0, id="never-and-always"),
        pytest.param([right(4), right(0)], 4, (1 - 2 * 0.5**4) / 2, id="mean-over-prompts"),
        pytest.param([[0.0, 0.3, 0.6, 0.9]], 2, 1 - 4 * 0.25**2, id="four-values"),
        pytest.param([[0.5, 0.5001, 0.5, 0.5002]], 8, 0.0, id="noise-is-no-spread"),
    ],
)
def test_expected_signal_by_hand(groups: list[list[float]], group_size: int, signal: float) -> None:
    assert expected_signal(groups, group_size, UNIT) == pytest.approx(signal)
