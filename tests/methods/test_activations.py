"""The table of activations agrees with passes that are counted tensor by tensor, without their numbers."""

from __future__ import annotations

import pytest

from benchmarks.activations import KINDS, SHAPES, count, estimated, fit
from methods.sizes.activations import TABLE, Adapter, Kind

TWO_LAYERS = {name: shape._replace(layers=2) for name, shape in SHAPES.items()}
"""All layers of a model are alike, so two of them say what the others take."""


def check(name: str, kind: Kind, *, recomputes: bool) -> None:
    shape = TWO_LAYERS[name]
    counted = count(shape, kind, recomputes=recomputes)
    found = estimated(shape, kind, counted, recomputes=recomputes)
    assert found == pytest.approx(counted.peak, rel=0.15), "run `python -m benchmarks.activations --write`"


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_an_estimate_is_within_15_percent_of_what_a_pass_of_a_7b_takes(
    adapter: Adapter, recomputes: bool
) -> None:
    check("Qwen2.5-7B", Kind("packed", adapter, 2), recomputes=recomputes)


def test_an_estimate_of_supervised_and_dpo_rows_is_within_15_percent() -> None:
    check("Qwen3-0.6B", Kind("rows", "lora", 2), recomputes=False)


@pytest.mark.long
@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("name", SHAPES)
def test_every_estimate_is_within_15_percent(name: str, kind: Kind, recomputes: bool) -> None:
    check(name, kind, recomputes=recomputes)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_table_is_what_passes_take_today(kind: Kind) -> None:
    assert fit(kind) == pytest.approx(TABLE[kind], abs=0.11), "run `python -m benchmarks.activations --write`"
