"""The arithmetic of the sampler's benchmark, and our sides of it from end to end. No test looks at speed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.sampler.__main__ import Model, Side, described, rate, report
from tests.tiny_model import make_tiny_model


def answers(*rates: float, **more: float) -> list[dict[str, float]]:
    return [{"tokens": 100, "cpu": 100 / each, "wall": 50 / each, **more} for each in rates]


def test_a_rate_is_the_median_over_rounds() -> None:
    assert rate(answers(100, 400, 200)) == 200
    assert rate(answers(100, 400, 200), "wall") == 400


def test_a_report_sets_our_engine_against_the_best_of_each_other_side() -> None:
    runs = {
        ("ours", "engine", 8): answers(4000, 4000, first=0.5, p99=0.002),
        ("ours", "groups", 8): answers(5000),
        ("transformers", "generate", 8): answers(800),
        ("transformers", "continuous", 8): answers(900),
        ("llama.cpp", "one by one", 8): answers(1000),
        ("llama.cpp", "batched", 8): answers(2000),
    }
    row = report(Model("tiny", Path(), (8,), {8: 1.8}), runs).splitlines()[2]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    numbers = ["4,000", "5,000", "800", "900", "1,000", "2,000", "–"]
    assert cells == ["tiny, 8", *numbers, "2.00 (bar 1.8)", "5.0", "500.0", "2.0"]


def test_a_description_names_versions_and_flags() -> None:
    about = {"ours": {"torch": "2"}, "llama.cpp": {"llama-cpp-python": "0.3", "system": "CPU : AVX2 = 1"}}
    told = described(about, SimpleNamespace(flags="-DGGML_NATIVE=ON", rounds=5))  # type: ignore[arg-type]
    assert told.startswith("torch 2, llama-cpp-python 0.3. fp32")
    assert "built with -DGGML_NATIVE=ON; CPU : AVX2 = 1" in told
    assert "medians of 5 rounds" in told


@pytest.mark.long
@pytest.mark.parametrize(
    ("side", "ways"), [("ours_side", ("engine", "groups")), ("stock_side", ("generate", "continuous"))]
)
def test_a_side_samples_as_many_tokens_as_asked(side: str, ways: tuple[str, ...], tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny", context=400)
    asked = Side([sys.executable, "-m", f"benchmarks.sampler.{side}", str(folder)])
    try:
        for way in ways:
            found = asked.ask(prompts=[[5, 6, 7], [8, 9, 10]], tokens=6, how=way)
            assert found["tokens"] == 12
            assert np.isfinite([found["cpu"], found["wall"]]).all()
    finally:
        asked.close()
