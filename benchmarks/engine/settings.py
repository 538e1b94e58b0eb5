"""Which of stock's settings is its best here: `python -m benchmarks.engine.settings [--model nano]`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine.models import MODELS, make_model
from benchmarks.engine.report import table
from benchmarks.engine.setup import Setup
from benchmarks.engine.stock import Stock
from benchmarks.engine.timing import StepCost, milliseconds_per_token
from benchmarks.engine.workloads import WORKLOADS

STEPS = 3
"""Of each turn; the first warms up."""

VARIANTS: dict[str, dict[str, Any]] = {
    "as benchmarked": {},
    "static cache": {"cache_implementation": "static"},
    "continuous batching": {"use_transformers_continuous_batching": True},
    "4 micro-batches": {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4},
    "gradient checkpointing (TRL's default)": {"gradient_checkpointing": True},
    "eager attention": {"model_init_kwargs": {"dtype": "float32", "attn_implementation": "eager"}},
}


def measure(setup: Setup, overrides: dict[str, Any]) -> list[StepCost]:
    """Steps of stock alone, without the first."""
    steps: list[StepCost] = []
    Stock(setup, **overrides).train(lambda _, cost: steps.append(cost))
    return steps[1:]


def compare(setup: Setup, rounds: int) -> list[list[str]]:
    """A row for each setting; they take turns, so that a busy machine troubles all alike."""
    found: dict[str, list[StepCost]] = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        for name, overrides in VARIANTS.items():
            found[name] += measure(setup, overrides)
    phases = ("generate", "reference", "train", None)
    return [
        [name, *[f"{milliseconds_per_token(steps, 'cpu', phase):.3f}" for phase in phases]]
        for name, steps in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="nano")
    parser.add_argument("--workloads", nargs="+", choices=tuple(WORKLOADS), default=["w1cap", "w1", "w2"])
    parser.add_argument("--rounds", type=int, default=3, help="how often every setting has its turn")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model = str(make_model(args.model, Path(folder), args.device))
        for workload in args.workloads:
            setup = Setup(WORKLOADS[workload], args.model, model, "lora", "float32", args.device, STEPS)
            rows += [[workload, *row] for row in compare(setup, args.rounds)]
    heads = ["workload", "setting", "generate", "reference", "forward+backward", "step"]
    print(f"Stock TRL on {args.model}, LoRA, fp32: CPU ms per sampled token\n")
    print(table(heads, rows))


if __name__ == "__main__":
    main()
