"""How the engine's step time and peak memory grow with prompts, group size, completion length, vocabulary.

`python -m benchmarks.scale --out docs/images/scale.svg` doubles one of them at a time. Each point is
measured in a process of its own. Linear growth means a constant time per sampled token.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.engine.memory import ROOT, reset_peak, resident_bytes
from benchmarks.engine.models import SHAPES, build
from benchmarks.engine.report import table
from benchmarks.engine.setup import Setup
from benchmarks.engine.workloads import Workload

STEPS = 6
"""Of each point; the first warms up."""

BASE = {"P": 4, "G": 8, "T": 64, "V": 2048}
AXES = {
    "P": (1, 2, 4, 8, 16),
    "G": (2, 4, 8, 16, 32),
    "T": (16, 32, 64, 128, 256),
    "V": (1024, 2048, 4096, 8192, 16384),
}
TITLES = {"P": "prompts per step", "G": "group size", "T": "completion tokens", "V": "vocabulary"}


@dataclass(frozen=True)
class Point:
    """One measured size: CPU seconds of a step (median), sampled tokens, peak bytes above the libraries."""

    value: int
    cpu: float
    tokens: int
    memory: int


class Growth(NamedTuple):
    """Exponents of the fitted power laws along one axis: 1 is linear growth, 0 is none."""

    time: float
    memory: float


def exponent(values: Sequence[float], measured: Sequence[float]) -> float:
    """Slope of the least-squares line through the logarithms."""
    slope, _ = statistics.linear_regression([math.log(x) for x in values], [math.log(y) for y in measured])
    return slope


def growth(points: Sequence[Point]) -> Growth:
    """Fitted through the upper three points, where fixed costs weigh least."""
    upper = points[-3:]
    values = [point.value for point in upper]
    return Growth(
        exponent(values, [point.cpu for point in upper]), exponent(values, [point.memory for point in upper])
    )


def make_setup(sizes: dict[str, int], folder: Path) -> Setup:
    """A step of these sizes, in which every completion runs to the cap."""
    P, G, T, V = (sizes[name] for name in "PGTV")
    workload = Workload("scale", "", 60, T, P, G, False, "random", P)
    model = folder / f"vocab{V}"
    if not model.exists():
        build(SHAPES["qwen2m"]._replace(vocab=V, warm_up_steps=0), model)
    return Setup(workload, model.name, str(model), "lora", "float32", "cpu", STEPS)


def measure_axis(axis: str, folder: Path) -> Iterator[Point]:
    """Points of one axis; the other sizes are `BASE`."""
    for value in AXES[axis]:
        setup = make_setup({**BASE, axis: value}, folder)
        command = [sys.executable, "-m", "benchmarks.scale", "--point", setup.to_json()]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        found = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True)
        point = Point(value, **json.loads(found.stdout.splitlines()[-1]))
        print(f"{TITLES[axis]} {value:,}: {point.cpu:.2f} CPU s per step", file=sys.stderr, flush=True)
        yield point


def run_point(setup: Setup) -> dict[str, Any]:
    """Measure one point in this process."""
    from benchmarks.engine.ours import Ours

    reset_peak()
    libraries = resident_bytes("VmRSS")
    with Ours(setup) as ours:
        steps = [ours.step(step) for step in range(setup.steps)][1:]
    return {
        "cpu": statistics.median(step.seconds("cpu") for step in steps),
        "tokens": steps[0].tokens,
        "memory": resident_bytes("VmHWM") - libraries,
    }


def text_of(found: dict[str, list[Point]]) -> str:
    """Tables and exponents."""
    rows, fits = [], []
    for axis, points in found.items():
        for point in points:
            per_token = f"{1e3 * point.cpu / point.tokens:.3f}"
            cells = [f"{point.value:,}", f"{point.tokens:,}", f"{point.cpu:.3f}", per_token]
            rows.append([TITLES[axis], *cells, f"{point.memory / 1e6:,.0f}"])
        fit = growth(points)
        fits.append([TITLES[axis], f"{fit.time:.2f}", f"{fit.memory:.2f}"])
    others = ", ".join(f"{name}={value:,}" for name, value in BASE.items())
    heads = ["axis", "size", "sampled tokens", "CPU s per step", "CPU ms per token", "peak MB"]
    return "\n\n".join(
        [
            f"The others are {others}; 60-token prompts, LoRA, fp32, one thread, a Qwen3 of 2 M parameters.",
            table(heads, rows),
            "Fitted exponents over the upper three sizes (1 is linear, less is better):",
            table(["axis", "time per step", "peak memory"], fits),
        ]
    )


def draw(found: dict[str, list[Point]], out: Path) -> None:
    """Write the chart as SVG; its texts stay texts, so that it is small."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "scale", "font.size": 9})
    figure, panels = plt.subplots(2, 2, figsize=(8, 5.5), layout="constrained")
    for panel, (axis, points) in zip(panels.flat, found.items(), strict=True):
        _draw_panel(panel, TITLES[axis], points)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})


def _draw_panel(panel: Any, title: str, points: Sequence[Point]) -> None:
    values = [point.value for point in points]
    fit = growth(points)
    panel.loglog(values, [point.cpu for point in points], "o-", color="#b3123f", base=2)
    panel.set_title(f"{title}: time ~ n^{fit.time:.2f}, memory ~ n^{fit.memory:.2f}", fontsize=9)
    panel.set_ylabel("CPU seconds per step", color="#b3123f")
    panel.grid(alpha=0.3)
    memory = panel.twinx()
    memory.loglog(values, [point.memory / 1e6 for point in points], "s--", color="#30638e", base=2)
    memory.set_ylabel("peak memory, MB", color="#30638e")
    for shown in (panel, memory):
        shown.minorticks_off()
        shown.set_xticks(values, [f"{value:,}" for value in values])
        shown.yaxis.set_major_formatter("{x:g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="the chart")
    parser.add_argument("--axes", default="PGTV", help="which to measure")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.point:
        print(json.dumps(run_point(Setup.from_json(args.point))))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = {axis: list(measure_axis(axis, Path(folder))) for axis in args.axes}
    print(text_of(found))
    if args.out:
        draw(found, args.out)


if __name__ == "__main__":
    main()
