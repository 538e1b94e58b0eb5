"""The smallest gain that an evaluation can show, by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from methods.rewards import Scale
from workers.training.trust.power import Judging, smallest_gain

UNIT = Scale(0.0, 1.0)


def right(n: int, of: int = 8) -> list[float]:
    return [1.0] * n + [0.0] * (of - n)


@pytest.mark.parametrize(("rows", "samples"), [(24, 8), (48, 4), (100, 4)])
def test_the_smallest_gain_is_found_in_about_80_per_cent_of_jobs(rows: int, samples: int) -> None:
    """Half of the rows gain twice as much; a sign-flip test at 5 % as jobs make it, 400 times."""
    chance = np.random.default_rng(5)
    base = [list((chance.random(8) < p).astype(float)) for p in chance.uniform(0.1, 0.5, 64)]
    gain = smallest_gain(base, Judging("unseen", rows, samples, looks=1), UNIT)
    assert gain is not None
    found = 0
    for _ in range(400):
        p = chance.uniform(0.1, 0.5, rows)
        better = p + np.where(chance.permutation(rows) < rows // 2, 2 * gain, 0.0)
        after, before = ((chance.random((rows, samples)) < q[:, None]).mean(1) for q in (better, p))
        flipped = chance.choice([-1.0, 1.0], (500, rows)) @ (after - before)
        found += bool((flipped >= (after - before).sum() - 1e-12).mean() <= 0.05)
    assert found / 400 == pytest.approx(0.8, abs=0.08)


def test_more_looks_ask_for_a_larger_gain_and_few_rows_show_none() -> None:
    base = [right(2), right(3), right(1)]

    def smallest(rows: int, looks: int = 1, samples: int = 4) -> float | None:
        return smallest_gain(base, Judging("unseen", rows, samples, looks), UNIT)

    one, eight = smallest(24), smallest(24, looks=8)
    assert one is not None
    assert eight is not None
    assert one < eight < 1
    assert smallest(4) is None, "four equal signs come by luck in one case of sixteen"
    assert smallest_gain([right(8)], Judging("unseen", 50, 8, 1), UNIT) is None, "nothing is left to gain"


def test_few_training_rows_show_a_gain_by_many_completions() -> None:
    base = [right(2), right(3), right(1)]
    assert smallest_gain(base, Judging("training", 3, 11, 1), UNIT) is not None
    assert smallest_gain(base, Judging("training", 3, 1, 1), UNIT) is None


def test_single_completions_are_as_uncertain_as_their_spread() -> None:
    base = [[1.0], [0.0]] * 12
    found = smallest_gain(base, Judging("unseen", 24, 1, 1), UNIT)
    assert found is not None
    assert found > 0.25
