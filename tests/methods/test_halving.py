from pathlib import Path

import pytest

from methods.halving import arm_seeds, control_steps, looks_of, rungs, steps_beside, steps_of
from tests.workers.training.support import make_config


@pytest.mark.parametrize(
    ("total", "interval", "seeds", "expected", "steps", "looks"),
    [
        (40, 5, 1, [(40, 1)], 40, 8),
        (40, 5, 2, [(20, 2), (40, 1)], 60, 12),
        (40, 5, 3, [(10, 3), (20, 2), (40, 1)], 70, 14),
        (40, 5, 4, [(10, 4), (20, 2), (40, 1)], 80, 16),
        (80, 5, 5, [(10, 5), (20, 3), (40, 2), (80, 1)], 160, 32),
        (12, 5, 4, [(5, 4), (5, 2), (12, 1)], 27, 6),
        (3, 5, 4, [(3, 4), (3, 2), (3, 1)], 12, 4),
    ],
)
def test_rungs_halve_the_seeds_and_double_the_steps(total, interval, seeds, expected, steps, looks):
    plan = rungs(total, interval, seeds)
    assert plan == expected
    assert steps_of(plan) == steps
    assert looks_of(plan, interval) == looks


@pytest.mark.parametrize(
    ("total", "interval", "expected"), [(40, 5, 10), (100, 5, 25), (40, 20, 40), (8, 5, 8), (3, 5, 3)]
)
def test_a_control_takes_a_quarter_and_two_evaluations(total, interval, expected):
    assert control_steps(total, interval) == expected


def test_seeds_begin_with_the_jobs_own_and_all_differ():
    assert arm_seeds(7, 1) == [7]
    seeds = arm_seeds(7, 16)
    assert seeds[:4] == arm_seeds(7, 4)
    assert len(set(seeds)) == 16
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert arm_seeds(8, 4)[1:] != seeds[1:4]


@pytest.mark.parametrize(("devices", "steps"), [(1, 80), (2, 50), (3, 50), (4, 40), (64, 40)])
def test_seeds_side_by_side_take_as_long_as_the_longest_row_of_them(devices, steps):
    assert steps_beside(rungs(40, 5, 4), devices) == steps
    config = make_config(Path("none"), n_seeds=4, n_epochs=20, eval_interval=5, processes=devices)
    assert config.total_steps(4) == 40
    assert config.speed_up(4) == 80 / steps
    assert config.model_copy(update={"sharding": "fsdp"}).speed_up(4) == devices
