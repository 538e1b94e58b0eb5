"""The tables of docs/scaling.md: what published models take on GPUs, by method, and which GPUs hold them.

    python -m scripts.memory_tables

It is arithmetic alone (methods/memory.py, workers/training/model/fitting.py): no weights, no GPU, a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from methods import memory
from methods.hyperparameters import Method
from methods.memory import Run
from methods.model_files.precision import BasePrecision
from methods.sizes.activations import Adapter
from methods.sizes.model_size import ModelSize
from workers.training.model import fitting

GPUS = (8, 24, 48, 80, 141)
"""GB of memory on cards that are sold, of 10^9 bytes each."""
GB = 10**9
CARDS = (8, 12, 16, 24, 48, 80, 141)
"""The same, with the cards that a quantised base is for."""
WAYS: tuple[tuple[Adapter, BasePrecision], ...] = (
    ("lora", "nf4"),
    ("lora", "int8"),
    ("lora", "bf16"),
    ("full", "auto"),
)
NUMBERS = (1, 2, 4, 8)


def size(
    hidden: int, inner: int, layers: int, heads: int, kv: int, width: int, vocabulary: int, *, tied: bool
) -> ModelSize:
    """Returns the size of a Llama or Qwen2 by the numbers of its config."""
    queries, keys = heads * width, kv * width
    rows_and_columns = [(queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries)]
    rows_and_columns += [(inner, hidden)] * 3
    matrices = layers * sum(rows * columns for rows, columns in rows_and_columns)
    return ModelSize(
        parameters=matrices + vocabulary * hidden * (1 if tied else 2),
        matrices=matrices,
        adapted=layers * sum(map(sum, rows_and_columns)),
        layers=layers,
        hidden=hidden,
        intermediate=inner,
        cached=2 * layers * keys,
        vocabulary=vocabulary,
        context=32_768,
        stored_bytes=2,
        queries=queries,
    )


MODELS = {
    "0.5B": size(896, 4864, 24, 14, 2, 64, 151_936, tied=True),
    "1.5B": size(1536, 8960, 28, 12, 2, 128, 151_936, tied=True),
    "7B": size(3584, 18_944, 28, 28, 4, 128, 152_064, tied=False),
    "14B": size(5120, 13_824, 48, 40, 8, 128, 152_064, tied=False),
    "32B": size(5120, 27_648, 64, 40, 8, 128, 152_064, tied=False),
    "70B": size(8192, 28_672, 80, 64, 8, 128, 128_256, tied=False),
}
"""Qwen2.5 of these sizes, and Llama 3.1 70B."""


def run_of(model: ModelSize, method: Method, adapter: Adapter) -> Run:
    """Returns a run of "auto" on GPUs, which leaves passes to the free memory."""
    return memory.usual_run(model, method, adapter, "cuda")._replace(pass_tokens=None, recomputes=None)


def passes() -> Iterator[str]:
    """Yields rows: what a token takes in a pass, kept and run again."""
    yield "| model | adapter | MiB a token | with gradient checkpointing |"
    yield "|---|---|---:|---:|"
    for name, model in MODELS.items():
        for adapter in get_args(Adapter):
            run = run_of(model, "reinforcement", adapter)
            found = [
                fitting.bytes_of_token(model, run, fitting.Plan(1, recomputes)) / 2**20
                for recomputes in (False, True)
            ]
            yield f"| {name} | {adapter} | {found[0]:,.2f} | {found[1]:,.2f} |"


def one_gpu() -> Iterator[str]:
    """Yields rows: tokens of a pass on one GPU of each size."""
    yield f"| model, method, adapter | at least | {' | '.join(f'{gb} GB' for gb in GPUS)} |"
    yield "|---|---:|" + "---:|" * len(GPUS)
    for name, model in MODELS.items():
        for method in get_args(Method):
            for adapter in get_args(Adapter):
                run = run_of(model, method, adapter)
                least = fitting.least_bytes(model, run)
                cells = [_passes_on(model, run, gb * GB) for gb in GPUS]
                yield f"| {name}, {method}, {adapter} | {least / GB:,.0f} GB | {' | '.join(cells)} |"


def largest() -> Iterator[str]:
    """Yields rows: the largest of `MODELS` that one GPU of each size trains, by what is trained."""
    yield f"| method, adapter, base | {' | '.join(f'{gb} GB' for gb in CARDS)} |"
    yield "|---|" + "---:|" * len(CARDS)
    for method in get_args(Method):
        for adapter, precision in WAYS:
            cells = [_largest(method, adapter, precision, gb * GB) for gb in CARDS]
            base = "" if adapter == "full" else f", {precision}"
            yield f"| {method}, {adapter}{base} | {' | '.join(cells)} |"


def _largest(method: Method, adapter: Adapter, precision: BasePrecision, total: int) -> str:
    fits = [
        name
        for name, model in MODELS.items()
        if fitting.least_bytes(model, run_of(model, method, adapter)._replace(precision=precision)) <= total
    ]
    return fits[-1] if fits else "none"


def several_gpus() -> Iterator[str]:
    """Yields rows: what each GPU needs at least where several share a model (fsdp)."""
    yield f"| model, adapter | {' | '.join(f'{n} GPU' + 's' * (n > 1) for n in NUMBERS)} |"
    yield "|---|" + "---:|" * len(NUMBERS)
    for name, model in MODELS.items():
        for adapter in get_args(Adapter):
            run = run_of(model, "reinforcement", adapter)
            needs = [
                fitting.least_bytes(model, run._replace(processes=n, is_sharded=n > 1)) / GB for n in NUMBERS
            ]
            yield f"| {name}, {adapter} | {' | '.join(f'{need:,.0f} GB' for need in needs)} |"


def _passes_on(model: ModelSize, run: Run, total: int) -> str:
    if fitting.least_bytes(model, run) > total:
        return "no"
    planned = fitting.planned(model, run, total)
    return f"{planned.pass_tokens:,}{'*' if planned.recomputes else ''}"


if __name__ == "__main__":
    for table in (passes, one_gpu, largest, several_gpus):
        print("\n".join(table()), end="\n\n")
