"""What is printed: markdown tables, and the same as plain data."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine import ours, stock
from benchmarks.engine.memory import Peak
from benchmarks.engine.pairs import Pairs
from benchmarks.engine.setup import BETA, LORA_RANK, Setup
from benchmarks.engine.timing import ClockName, Ratio, StepCost, milliseconds_per_token, ratio_of

SHOWN = ("generate", "reference", "train")
CURVE_PARTS = 6


@dataclass(frozen=True)
class Result:
    """One case, measured. `peaks` and `shares` are (stock, ours), where they were asked for."""

    setup: Setup
    pairs: Pairs
    peaks: tuple[Peak, Peak] | None
    gemm_rate: float
    shares: tuple[float, float] | None


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def text_of(results: Sequence[Result], threads: int) -> str:
    """Everything a run found, for people."""
    parts = [
        _setting(results[0].setup, threads),
        _workloads(results),
        "### Stock's time over ours (CPU seconds per sampled token; median over pairs, lowest to highest)",
        _ratios(results, "cpu"),
        "### The same by wall time",
        _ratios(results, "wall"),
        "### Milliseconds of CPU per sampled token (median over steps), and sampled tokens",
        _absolute(results),
        "### Where stock's time goes",
        _stock_shares(results),
        "### Peak memory (MB) and share of the machine's matrix-multiplication rate",
        _resources(results),
    ]
    curves = [result for result in results if result.setup.workload.reward == "letters"]
    if curves:
        parts += ["### Learning: whole run and mean reward, by sixths of the run", _curves(curves)]
    return "\n\n".join(parts)


def data_of(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Everything a run found, step by step."""
    return [
        {
            "setup": asdict(result.setup),
            "stock": [asdict(step) for step in result.pairs.stock],
            "ours": [asdict(step) for step in result.pairs.ours],
            "peaks": [peak._asdict() for peak in result.peaks or ()],
            "gemm_rate": result.gemm_rate,
            "shares": result.shares,
        }
        for result in results
    ]


def _setting(setup: Setup, threads: int) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "peft"))
    return "\n".join(
        [
            f"- machine: {_processor()}, {threads} thread(s), {setup.device}, {setup.dtype}; {versions}",
            f"- both: LoRA rank {LORA_RANK} on all linear layers or every weight, loss dapo (token mean),"
            f" beta {BETA} with the KL term times the ratio, AdamW, clip 1.0, temperature 1; the first pair"
            " is not counted",
            f"- stock: {stock.SETTINGS}",
            f"- ours: {ours.SETTINGS}",
        ]
    )


def _workloads(results: Sequence[Result]) -> str:
    found = {result.setup.workload.name: result.setup.workload for result in results}
    return "\n".join(
        f"- {workload.name}: {workload.title}; {workload.prompts} prompts a step"
        for workload in found.values()
    )


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in _lines(info) if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def _case(result: Result) -> list[str]:
    return [result.setup.workload.name, result.setup.model, result.setup.adapter]


def _ratios(results: Sequence[Result], clock: ClockName) -> str:
    rows = []
    for result in results:
        pairs = result.pairs.measured()
        found = [ratio_of(pairs.stock, pairs.ours, clock, phase) for phase in (*SHOWN, None)]
        rows.append([*_case(result), str(len(pairs.ours)), *map(_ratio, found)])
    return table(
        ["workload", "model", "trained", "pairs", "generate", "reference", "forward+backward", "step"], rows
    )


def _ratio(ratio: Ratio | None) -> str:
    return "–" if ratio is None else f"{ratio.median:.2f} ({ratio.lowest:.2f}..{ratio.highest:.2f})"


def _absolute(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        pairs = result.pairs.measured()
        for name, steps in (("stock", pairs.stock), ("ours", pairs.ours)):
            times = [f"{milliseconds_per_token(steps, 'cpu', phase):.3f}" for phase in (*SHOWN, "rest", None)]
            lengths = [length for step in steps for length in step.lengths]
            sampled = [f"{sum(lengths):,}", f"{sum(lengths) / len(lengths):.1f}"]
            rows.append([*_case(result), name, *times, *sampled])
    heads = ["generate", "reference", "forward+backward", "rest", "step", "tokens", "mean length"]
    return table(["workload", "model", "trained", "side", *heads], rows)


def _stock_shares(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        steps = result.pairs.measured().stock
        whole = sum(step.seconds("cpu") for step in steps)
        shares = [sum(step.seconds("cpu", phase) for step in steps) / whole for phase in (*SHOWN, "rest")]
        rows.append([*_case(result), *[f"{share:.0%}" for share in shares]])
    return table(["workload", "model", "trained", "generate", "reference", "forward+backward", "rest"], rows)


def _resources(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        peaks, shares = result.peaks, result.shares
        cells = [_megabytes(peak) for peak in peaks] if peaks else ["–", "–"]
        cells += [f"{share:.0%}" for share in shares] if shares else ["–", "–"]
        rows.append([*_case(result), *cells, f"{result.gemm_rate / 1e9:.0f}"])
    heads = ["memory, stock", "memory, ours", "share, stock", "share, ours", "GFLOP/s of the model's GEMMs"]
    note = "Memory: above the libraries, weights included; in brackets above that before the first step."
    return note + "\n\n" + table(["workload", "model", "trained", *heads], rows)


def _megabytes(peak: Peak) -> str:
    text = f"{peak.whole / 1e6:,.0f} ({peak.training / 1e6:,.0f})"
    return f"{text}, GPU {peak.cuda / 1e6:,.0f}" if peak.cuda else text


def _curves(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        pairs = result.pairs
        for name, steps in (("stock", pairs.stock), ("ours", pairs.ours)):
            cpu, wall = (sum(step.seconds(clock) for step in steps) for clock in ("cpu", "wall"))
            tokens = sum(step.tokens for step in steps)
            curve = " ".join(f"{value:.3f}" for value in curve_of(steps))
            cells = [str(len(steps)), f"{tokens:,}", f"{cpu:.1f}", f"{wall:.1f}"]
            rows.append([*_case(result), name, *cells, f"{1e3 * cpu / tokens:.3f}", curve])
    heads = ["side", "steps", "tokens", "CPU s", "wall s", "CPU ms/token", "mean reward"]
    return table(["workload", "model", "trained", *heads], rows)


def curve_of(steps: Sequence[StepCost]) -> list[float]:
    """Mean reward in each of `CURVE_PARTS` parts of a run of at least so many steps."""
    bounds = [round(i * len(steps) / CURVE_PARTS) for i in range(CURVE_PARTS + 1)]
    parts = [steps[start:end] for start, end in pairwise(bounds)]
    return [sum(step.reward for step in part) / len(part) for part in parts if part]
