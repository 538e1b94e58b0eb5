"""`python -m scripts.gpu.checks.quantised DEVICE FOLDER`: is training beside a base in 4 or 8 bits right?

Products with quantised weights stand beside those with the dequantised weight, for few rows and many, since
bitsandbytes has a kernel for each. Then the built-in model is trained for a few steps in each precision: the
KL to the reference is 0 before the first update, sampler and trainer agree, all numbers are finite.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from methods import metrics as names
from scripts.gpu.checks.short_runs import short_run, unknown_numbers
from workers.training.model.quantised import KINDS

ROWS = (1, 8, 64, 2048)
SHAPES = {"cuda": (4096, 4096), "cpu": (256, 192)}
"""Outputs and inputs of the layer that is multiplied."""
REPEATS = {"cuda": 20, "cpu": 2}
MOST_APART = {torch.bfloat16: 1e-2, torch.float32: 1e-5}
"""The largest distance of products, by their norm: chosen as about twice what rounding makes of them."""
MOST_MISMATCH = {"cuda": 0.1, "cpu": 1e-4}
"""The largest gap between the log-probabilities of sampler and trainer, as the tests of such runs have it."""


def main(device: str, folder: Path) -> int:
    """Prints a line for each product and run; returns 1 if one is not right, else 0."""
    wrong = False
    for precision in KINDS:
        wrong |= bits(precision, device)
        for rows in ROWS:
            wrong |= product(precision, device, rows)
        wrong |= run(precision, device, folder / precision)
    return int(wrong)


def bits(precision: str, device: str) -> bool:
    """Prints how many numbers a CPU would quantise otherwise. It is told, not held: ties may be broken."""
    weight = random(SHAPES[device], 0)
    here = KINDS[precision].of(weight, torch.float32).weight(torch.float32)
    there = KINDS[precision].of(weight.to(device), torch.float32).weight(torch.float32).cpu()
    print(f"{precision}: {int((here != there).sum())} of {weight.numel()} numbers are not those of a CPU")
    return False


def product(precision: str, device: str, rows: int) -> bool:
    """Prints how far a product is from that of the dequantised weight, and how long both take."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    packed = KINDS[precision].of(random(SHAPES[device], 0).to(device), dtype)
    states = random((rows, SHAPES[device][1]), 1).to(device, dtype)
    weight = packed.weight(dtype)
    with torch.no_grad():
        ours, mine = timed(lambda: packed.product(states), device)
        theirs, plain = timed(lambda: nn.functional.linear(states, weight), device)
    apart = float((ours.float() - theirs.float()).norm() / theirs.float().norm())
    print(f"{precision}, {rows} rows: apart {apart:.1e}, {mine:.3f} ms, dequantised before {plain:.3f} ms")
    return not apart < MOST_APART[dtype]


def timed(call: Callable[[], Tensor], device: str) -> tuple[Tensor, float]:
    """Returns what a call gives, and its milliseconds after a first one."""
    call()
    wait: Callable[[], Any] = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    wait()
    began = time.perf_counter()
    for _ in range(REPEATS[device]):
        found = call()
    wait()
    return found, 1000 * (time.perf_counter() - began) / REPEATS[device]


def run(precision: str, device: str, folder: Path) -> bool:
    """Trains, and prints the KL at the start, the mismatch, the rewards and the seconds."""
    began = time.perf_counter()
    told = short_run(device, folder, base_precision=precision)
    kl, mismatch = told.series(names.KL_REFERENCE), max(told.series(names.SAMPLER_MISMATCH))
    unknown = unknown_numbers(told)
    print(f"{precision}: KL {', '.join(f'{each:.2e}' for each in kl)}; mismatch {mismatch:.1e};", end=" ")
    print(f"rewards {told.series(names.REWARD_MEAN)}; {time.perf_counter() - began:.1f} s")
    if unknown:
        print("no finite numbers:", ", ".join(unknown))
    return bool(unknown) or kl[0] != 0 or not mismatch < MOST_MISMATCH[device]


def random(shape: tuple[int, ...], seed: int) -> Tensor:
    """Returns normal numbers, the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
