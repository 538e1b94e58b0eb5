"""The pictures of the docs are drawn from the metrics that are stored beside them, and stay small."""

from __future__ import annotations

from pathlib import Path

from scripts.curves.__main__ import IMAGES, RECIPES, STORED, stored, take
from scripts.curves.drawing import drawing, nice
from scripts.curves.runs import RUNS

MOST_BYTES = 300_000


def test_every_picture_is_that_of_its_stored_metrics() -> None:
    runs = stored(STORED) | stored(RECIPES)
    assert set(stored(STORED)) <= set(RUNS)
    pictures = {
        path.stem.removeprefix("curve-"): path.read_text("utf-8") for path in IMAGES.glob("curve-*.svg")
    }
    assert pictures == {name: drawing(steps) for name, steps in runs.items()}, "python -m scripts.curves draw"


def test_pictures_stay_small() -> None:
    assert sum(path.stat().st_size for path in IMAGES.iterdir()) < MOST_BYTES


def test_a_point_lies_where_its_value_is() -> None:
    svg = drawing([{"step": 0, "reward/valid_mean": 0.0}, {"step": 2, "reward/valid_mean": 1.0}])
    assert 'd="M40.0 200.0 340.0 30.0"' in svg
    assert "gold" not in svg.partition("</style>")[2]


def test_a_result_file_is_kept_by_its_columns(tmp_path: Path) -> None:
    file = tmp_path / "step_metrics.csv"
    file.write_text("step,train_mean_reward,full_valid_mean_reward,kl\n0,,0.1,\n1,0.5,,0.02\n")
    steps = take(file)
    assert steps == [
        {"step": 0.0, "reward/valid_mean": 0.1},
        {"step": 1.0, "reward/mean": 0.5, "kl/probe_mean": 0.02},
    ]


def test_an_axis_ends_at_a_round_number() -> None:
    assert [nice(value) for value in (0.0, 0.011, 0.03, 0.9, 7.2)] == [0.01, 0.02, 0.05, 1.0, 10.0]
