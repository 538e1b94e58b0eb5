"""Runs the Triton kernels in Triton's interpreter, against their plain twins. It is started as a process.

    python -m tests.workers.training.kernels.gpu.interpreted TRIES [SEED]

Triton decides at import whether its kernels are interpreted. Every failure is one line on standard output,
and the exit status says whether there was one.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter

from workers.training.kernels.gpu import plain, triton_attention, triton_rows
from workers.training.sampling.decode_step import places

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}
"""One unit in the last place, and 1e-5 where that is less."""
DTYPES = tuple(TOLERANCE)
MOST = 3


def teach_bfloat16() -> None:
    """Lets the interpreter compute with bfloat16, which it takes for integers, and round to the nearest."""
    builder: Any = interpreter.InterpreterBuilder
    cast, dot = builder.cast_impl, builder.create_dot

    def rounded(self: Any, source: Any, target: Any) -> Any:
        if source.dtype.scalar != tl.float32 or target.scalar != tl.bfloat16:
            return cast(self, source, target)
        exact = torch.from_numpy(np.ascontiguousarray(source.data))
        bits = exact.to(torch.bfloat16).view(torch.uint16).numpy()
        return interpreter.TensorHandle(bits, tl.bfloat16)

    def widened(self: Any, one: Any, other: Any, *rest: Any) -> Any:
        wide = (
            cast(self, each, tl.float32) if each.dtype.scalar == tl.bfloat16 else each
            for each in (one, other)
        )
        return dot(self, *wide, *rest)

    builder.cast_impl, builder.create_dot = rounded, widened


class Shapes:
    """Draws shapes and numbers."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = DTYPES[seed % len(DTYPES)]

    def pick(self, *values: int) -> int:
        return self.random.choice(values)

    def numbers(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(self.dtype)

    def wider(self, rows: int, width: int, size: float = 1.0) -> Tensor:
        """(rows, width) whose rows lie apart."""
        return (size * self.numbers(rows, width + self.pick(0, 8)))[:, :width]


def add_rms_norm(s: Shapes) -> tuple[list[Any], dict[str, Any]]:
    rows, width = s.random.randint(1, MOST), s.pick(1, 32, 96, 129, 1000)
    added = s.pick(0, 1)
    return [s.numbers(rows, width), s.wider(rows, width) if added else None, s.numbers(width), 1e-5], {}


def gated_silu(s: Shapes) -> tuple[list[Any], dict[str, Any]]:
    return [s.wider(s.random.randint(1, MOST), 2 * s.pick(1, 48, 1030), 4.0)], {}


def rotate_and_keep(s: Shapes) -> tuple[list[Any], dict[str, Any]]:
    rows, width = s.random.randint(1, MOST), s.pick(2, 6, 32, 80, 128)
    kv_heads, columns = s.pick(1, 2, 3), s.pick(1, 9)
    heads = kv_heads * s.pick(1, 2, 7)
    norms = (s.numbers(width), s.numbers(width)) if s.pick(0, 1) else (None, None)
    angles = torch.rand(rows, width // 2, generator=s.generator).repeat(1, 2) * 6
    at = torch.randint(columns, (rows,), generator=s.generator)
    kept = [s.numbers(rows + 1, kv_heads, columns, width) for _ in range(2)]
    mixed = s.wider(rows, (heads + 2 * kv_heads) * width)
    return [mixed, *norms, 1e-5, angles.cos().to(s.dtype), angles.sin().to(s.dtype), at, *kept, heads], {}


def decode_attention(s: Shapes) -> tuple[list[Any], dict[str, Any]]:
    n, members = s.pick(1, 2, 3), s.pick(1, 2, 5)
    most = n * members
    group = np.sort(np.array([s.random.randrange(n) for _ in range(s.random.randint(1, most))]))
    group = np.concatenate([group[group == i][:members] for i in range(n)])
    rows, spare = len(group), s.pick(0, 1)
    source, place = places(group, n, members)
    width, kv_heads, prompt_width, own_width = (
        s.pick(32, 64, 80, 128),
        s.pick(1, 2),
        s.pick(1, 65, 200),
        s.pick(1, 40, 130),
    )
    heads = kv_heads * s.pick(1, 3, 7, 20)
    prompts = [s.numbers(n + 1, kv_heads, prompt_width + 3, width) for _ in range(2)]
    own = [s.numbers(rows + 2, kv_heads, own_width + 2, width) for _ in range(2)]
    lengths = torch.randint(1, prompt_width + 1, (n,), generator=s.generator)
    columns = torch.randint(own_width, (rows + spare,), generator=s.generator)
    columns[rows:] = 0
    for kept, filled in ((prompts, lengths), (own, columns + 1)):
        for slot, first in enumerate(filled.tolist()):
            for stored in kept:
                stored[slot, :, first:] = torch.nan  # nothing beyond may be read
    arguments = [
        *(s.numbers(rows + spare, heads, width), *prompts, *own, lengths, columns),
        *(torch.from_numpy(source), torch.from_numpy(np.pad(place, (0, spare)))),
        *(prompt_width, own_width, width**-0.5),
    ]
    return arguments, {"processors": s.pick(1, 8, 132)}


CASES: tuple[tuple[Callable[[Shapes], Any], Any], ...] = (
    (add_rms_norm, triton_rows),
    (gated_silu, triton_rows),
    (rotate_and_keep, triton_rows),
    (decode_attention, triton_attention),
)


def fault_of(case: Callable[[Shapes], Any], kernels: Any, seed: int) -> str | None:
    """Says how a kernel's results differ from its plain twin's, for arguments drawn from a seed."""
    shapes = Shapes(seed)
    arguments, extra = case(shapes)
    ours, theirs = ([a.clone() if isinstance(a, Tensor) else a for a in arguments] for _ in range(2))
    found = getattr(kernels, case.__name__)(*ours, **extra)
    expected = getattr(plain, case.__name__)(*theirs)
    tolerance = TOLERANCE[shapes.dtype]
    for a, b in ((found, expected), *zip(ours, theirs, strict=True)):
        if isinstance(a, Tensor) and not torch.allclose(a, b, tolerance, tolerance, equal_nan=a is not found):
            where = [tuple(each.shape) for each in arguments if isinstance(each, Tensor)]
            return f"{case.__name__}, seed {seed}, {shapes.dtype}, {where}: off by {(a - b).abs().max()}"
    return None


def main(tries: int, first: int = 0) -> int:
    """Tries every kernel with as many seeds; returns how many failed."""
    teach_bfloat16()
    torch.set_num_threads(1)
    faults = 0
    for case, kernels in CASES:
        for seed in range(first, first + tries):
            if (fault := fault_of(case, kernels, seed)) is not None:
                faults += 1
                print(fault, flush=True)
        print(f"{case.__name__}: {tries} tried", flush=True)
    return faults


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])) > 0)
