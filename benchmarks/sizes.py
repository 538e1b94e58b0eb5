"""The engine's sizes and thresholds on this machine: what each value costs beside its neighbours.

    OMP_NUM_THREADS=1 python -m benchmarks.sizes

CPU time of one thread, the smallest of several rounds that take the values in turns. docs/benchmarks.md has
the figures that the docstrings of the constants speak of.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workers.training.model.base_model import load_base
from workers.training.passes import fused_nodes, token_logprobs
from workers.training.sampling import decoders
from workers.training.sampling.decode_attention import partial_attention
from workers.training.sampling.decode_step import ActiveRows
from workers.training.sampling.draw import LEAST_NUMBERS, draw

NANO = Path(__file__).parents[1] / "workers" / "models" / "cherry_nano"
WIDTH, INNER, VOCABULARY, HEAD = 256, 640, 1280, 64
MIB = 2**20
ROUNDS = 7


def in_turns(cases: Mapping[Any, Callable[[], object]], times: int = 1) -> dict[Any, float]:
    """Returns the seconds of CPU that one call of each case takes."""
    least = {name: float("inf") for name in cases}
    for run in cases.values():
        run()
    for _ in range(ROUNDS):
        for name, run in cases.items():
            start = time.process_time()
            for _ in range(times):
                run()
            least[name] = min(least[name], (time.process_time() - start) / times)
    return least


def report(what: str, found: Mapping[Any, float], unit: float = 1e3, name: str = "ms") -> None:
    print(
        f"{what}: " + ", ".join(f"{key} {value * unit:.3g} {name}" for key, value in found.items()),
        flush=True,
    )


def logits() -> None:
    """CACHED_BYTES, LEAST_ROWS and LOGIT_BYTES of passes/token_logprobs.py."""
    states, targets = torch.randn(2048, WIDTH, requires_grad=True), torch.randint(0, VOCABULARY, (2048,))
    frozen = nn.Linear(WIDTH, VOCABULARY, bias=False).requires_grad_(False)

    def logprobs(states: Tensor, head: nn.Linear, targets: Tensor, size: int) -> None:
        found, _ = token_logprobs.token_logprobs(states, head, targets, 1.0, logit_bytes=size)
        torch.autograd.backward(found.sum())

    sizes = [MIB // 4, MIB // 2, MIB, 2 * MIB]
    report(
        "CACHED_BYTES",
        in_turns(
            {f"{size / MIB:g} MiB": partial(logprobs, states, frozen, targets, size) for size in sizes}, 2
        ),
    )

    rows = {n: torch.randn(n, WIDTH) for n in (8, 16, 32, 64, 128, 256)}
    products = in_turns({n: partial(torch.mm, x, frozen.weight.T) for n, x in rows.items()}, 200)
    report("LEAST_ROWS, a row in products of", {n: value / n for n, value in products.items()}, 1e6, "us")

    wide, head = torch.randn(4096, 192, requires_grad=True), nn.Linear(192, 8192, bias=False)
    chosen = torch.randint(0, 8192, (4096,))

    budgets = [size * MIB for size in (4, 16, 32, 64, 128, 256)]
    report(
        "LOGIT_BYTES",
        in_turns({f"{size // MIB} MiB": partial(logprobs, wide, head, chosen, size) for size in budgets}),
    )


def threads() -> None:
    """LEAST_ROWS of passes/fused_nodes.py and LEAST_NUMBERS of sampling/draw.py."""
    pool, waits = ThreadPoolExecutor(2), []
    for _ in range(2000):
        start = time.perf_counter()
        pool.submit(int).result()
        waits.append(time.perf_counter() - start)
    report("handing work to a thread", {"median": median(waits)}, 1e6, "us")
    n = fused_nodes.LEAST_ROWS
    norm = SimpleNamespace(weight=torch.ones(WIDTH), variance_epsilon=1e-6)
    states, gate = torch.randn(n, WIDTH), torch.randn(n, INNER)
    nodes = {"norm": partial(fused_nodes.norm, norm, states), "gate": partial(fused_nodes.gated, gate, gate)}
    with torch.no_grad():
        report(f"fused_nodes.LEAST_ROWS, {n} rows", in_turns(nodes, 200), 1e6, "us")
    drawn = {}
    for vocabulary in (VOCABULARY, 32_000, 151_936):
        scores, uniform = torch.randn(4, vocabulary), torch.rand(4)
        seconds = in_turns({0: partial(draw, scores, uniform, 1.0)}, 20)[0]
        drawn[vocabulary] = seconds / (4 * vocabulary) * LEAST_NUMBERS
    report(f"LEAST_NUMBERS, {LEAST_NUMBERS} logits by vocabulary", drawn, 1e6, "us")


def decoding() -> None:
    """COMPILED_FROM and LEAN_FROM of sampling/decoders.py."""
    model = load_base(NANO).model
    ways = {"compiled": decoders.compiled, "lean": decoders.lean, "modules": decoders.by_modules}
    with torch.inference_mode():
        for n in (1, 8, 32):
            size = decoders.CacheSize(groups=1, prompt_columns=64, slots=n, columns=64, most_columns=64)
            rows = ActiveRows(np.zeros(n, np.int64), np.full(n, 20, np.int64), np.array([60]))
            ids = torch.ones(n, dtype=torch.long)
            made = in_turns({name: partial(way, model, size, n, n) for name, way in ways.items()})
            steps = {name: way(model, size, n, n)[1] for name, way in ways.items()}
            report(f"{n} completions, made", made)
            taken = in_turns({name: partial(step, rows, ids) for name, step in steps.items()}, 3)
            report(f"{n} completions, a step", taken)


def spans() -> None:
    """COMPLETION_SPAN_COST and PROMPT_SPAN_COST of sampling/decode_step.py."""
    with torch.inference_mode():
        for what, slots, queries in (
            ("a completion", 1, 2),
            ("8 completions", 8, 2),
            ("a prompt of 8", 1, 16),
        ):
            query, keys = torch.randn(slots, 2, queries, HEAD), torch.randn(slots, 2, 1024, HEAD)
            widths = (16, 64, 256, 1024)
            views = {width: keys[:, :, :width] for width in widths}
            found = in_turns(
                {w: partial(partial_attention, query, k, k, None, 0.1) for w, k in views.items()}, 30
            )
            report(f"attention to {what}, columns", found, 1e6, "us")
            column = (found[1024] - found[64]) / 960 / slots
            report("  a column of a slot", {"": column}, 1e6, "us")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for measure in (logits, threads, decoding, spans):
        measure()
