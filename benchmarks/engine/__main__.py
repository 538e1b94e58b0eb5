"""Measure the engine beside stock TRL and print markdown: `python -m benchmarks.engine`."""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.engine import memory, report
from benchmarks.engine.gemm import gemm_rate, linears_of, share_of_rate
from benchmarks.engine.models import MODELS, SHAPES, make_model
from benchmarks.engine.pairs import run_pairs
from benchmarks.engine.setup import Adapter, Setup
from benchmarks.engine.workloads import WORKLOADS

PAIRS = {"nano": 6, "qwen2m": 6, "qwen20m": 3, "qwen0.5b": 6}
LEARNING_STEPS = 80
"""10 epochs over w4's 32 prompts, 4 a step."""

MEMORY_WORKLOADS = ("w1cap", "w2")
"""Whose memory is measured; the others' is no more than w1cap's."""


class Case(NamedTuple):
    workload: str
    model: str
    adapter: Adapter
    pairs: int


def cases_of(args: argparse.Namespace) -> list[Case]:
    """What was asked for; without a choice, what fits into 25 minutes of one core."""
    if args.quick:
        return [Case(workload, "nano", "lora", 2) for workload in ("w1cap", "w1", "w2", "w3")]
    chosen = (args.workloads, args.models, args.adapters)
    product = itertools.product(
        args.models or ("nano", "qwen2m", "qwen20m"),
        args.adapters or ("lora", "full"),
        args.workloads or tuple(WORKLOADS),
    )
    return [
        Case(workload, model, adapter, args.pairs or _pairs(workload, model))
        for model, adapter, workload in product
        if any(chosen) or _is_default(workload, model, adapter)
    ]


def _pairs(workload: str, model: str) -> int:
    if workload == "w4":
        return LEARNING_STEPS - 1  # the first step counts here
    if workload == "w2":  # long steps, all of the same length
        return max(2, PAIRS[model] // 2)
    return PAIRS[model]


def _is_default(workload: str, model: str, adapter: str) -> bool:
    if workload == "w4":
        return (model, adapter) == ("nano", "lora")
    if model == "qwen20m":
        return adapter == "lora" and workload != "w3"
    return adapter == "lora" or workload in ("w1cap", "w1")


def measure(case: Case, folder: Path, args: argparse.Namespace) -> report.Result:
    """Everything about one case."""
    model = make_model(case.model, folder, args.device)
    setup = Setup(
        WORKLOADS[case.workload],
        case.model,
        str(model),
        case.adapter,
        args.dtype,
        args.device,
        case.pairs + 1,
    )
    pairs = run_pairs(setup)
    gc.collect()
    linears = linears_of(setup.folder)
    rate = gemm_rate(linears, setup)
    shares = None
    if setup.workload.reward == "random":  # elsewhere ours leaves groups out, and does less than is counted
        stock, ours = pairs.measured()
        shares = (
            share_of_rate(stock, linears, rate, setup),
            share_of_rate(ours, linears, rate, setup),
        )
    peaks = None
    if case.workload in MEMORY_WORKLOADS:
        peaks = (memory.measure("stock", setup), memory.measure("ours", setup))
    return report.Result(setup, pairs, peaks, rate, shares)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", type=_names(tuple(WORKLOADS)), help="of " + ",".join(WORKLOADS))
    parser.add_argument("--models", type=_names(MODELS), help="of " + ",".join(MODELS))
    parser.add_argument("--adapters", type=_names(("lora", "full")), help="of lora,full")
    parser.add_argument("--pairs", type=int, help="measured steps of each side")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="also write every step's figures to this file")
    parser.add_argument(
        "--quick", action="store_true", help="cherry-nano with LoRA, two pairs each: under 3 minutes"
    )
    args = parser.parse_args(argv)
    if args.device == "cpu" and any(SHAPES[m].cuda_only for m in args.models or () if m in SHAPES):
        parser.error("qwen0.5b is measured on CUDA alone")
    return args


def _names(allowed: tuple[str, ...]):  # type: ignore[no-untyped-def]
    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if not set(names) <= set(allowed):
            raise argparse.ArgumentTypeError(f"known are {', '.join(allowed)}")
        return names

    return read


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases_of(args):
            start = time.perf_counter()
            results.append(measure(case, Path(folder), args))
            print(f"{' '.join(case[:3])}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    print(report.text_of(results, args.threads))
    if args.json:
        args.json.write_text(json.dumps(report.data_of(results)))


if __name__ == "__main__":
    main()
