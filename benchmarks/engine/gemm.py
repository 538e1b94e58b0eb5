"""How near a side comes to the machine's matrix-multiplication rate. See `step_flops` for what is counted."""

from __future__ import annotations

import statistics
import time
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.engine.setup import Setup
from benchmarks.engine.timing import ClockName, StepCost

ROWS = 1024
"""Rows of the measured multiplications, about those of a training forward."""

REPEATS = 3


class Linears(NamedTuple):
    """A model's multiplications: (in, out) of every linear layer of the decoder, and of the output layer."""

    body: list[tuple[int, int]]
    head: tuple[int, int]

    @property
    def body_weights(self) -> int:
        return sum(inner * outer for inner, outer in self.body)

    @property
    def head_weights(self) -> int:
        return self.head[0] * self.head[1]


def linears_of(folder: str) -> Linears:
    """Read off the model's structure; no weights are loaded."""
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            AutoConfig.from_pretrained(folder)
        )
    head = model.get_output_embeddings()
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer is not head]
    return Linears(
        [(layer.in_features, layer.out_features) for layer in layers], (head.in_features, head.out_features)
    )


def gemm_rate(linears: Linears, setup: Setup) -> float:
    """FLOP per second of these multiplications alone, at `ROWS` rows: by CPU time, or wall time on a GPU."""
    dtype = getattr(torch, setup.dtype)
    shapes = [*linears.body, linears.head]
    operands = {
        shape: (
            torch.randn(ROWS, shape[0], device=setup.device).to(dtype),
            torch.randn(shape[1], shape[0], device=setup.device).to(dtype),
        )
        for shape in set(shapes)
    }
    flops = sum(2 * ROWS * inner * outer for inner, outer in shapes)

    def seconds() -> float:
        _finish(setup.device)
        clock = time.process_time if setup.device == "cpu" else time.perf_counter
        start = clock()
        for shape in shapes:
            torch.nn.functional.linear(*operands[shape])
        _finish(setup.device)
        return clock() - start

    seconds()
    return flops / statistics.median(seconds() for _ in range(REPEATS))


def step_flops(linears: Linears, adapter: str, prompt_tokens: int, tokens: int) -> float:
    """The least a step must multiply: every different prompt once, the output layer for sampled tokens alone.

    Prefill 2 N P, decoding 2 N C, reference 2 N (P + C), update 4 N (P + C) with a frozen base and
    6 N (P + C) with every weight trained; N weights, P prompt and C sampled tokens. Attention is not counted.
    """
    both = prompt_tokens + tokens
    passes = 4 if adapter == "lora" else 6
    body = 2 * prompt_tokens + 2 * tokens + (2 + passes) * both
    head = (2 + 2 + passes) * tokens
    return float(linears.body_weights * body + linears.head_weights * head)


def share_of_rate(steps: list[StepCost], linears: Linears, rate: float, setup: Setup) -> float:
    """Median over steps of (least FLOPs / rate) / time."""
    clock: ClockName = "cpu" if setup.device == "cpu" else "wall"
    return statistics.median(
        step_flops(linears, setup.adapter, step.prompt_tokens, step.tokens) / rate / step.seconds(clock)
        for step in steps
    )


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
