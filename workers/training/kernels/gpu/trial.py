"""A trial of the operations on the GPU at hand, against their plain twins, before a model is decoded by them.

It compiles the kernels, which takes seconds the first time, and finds out if they do not compile, do not run
or compute something else there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from workers.training.kernels.gpu import ops, plain

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""The largest difference of results, by norms, relative to the plain twin's. Chosen: rounding is a hundredth
of it, and a wrong operation is off by a tenth at least.
"""
HALF_TOLERANCE = 2e-2
"""The same in 16 bits, of which one rounding is 4e-3 at most. Chosen, not measured on a GPU."""

ROWS, GROUPS, PROMPT, OWN = 5, 2, 70, 40
"""Completions and prompts of the trial, and columns of each: more than a block of them, but not two."""


class Widths(NamedTuple):
    """Says how wide a model's parts are."""

    heads: int
    kv_heads: int
    head: int
    hidden: int
    gate: int


@cache
def fault_of(widths: Widths, dtype: torch.dtype, device: torch.device) -> str | None:
    """Returns what is wrong with the operations for such a model on a device; None if nothing is."""
    for name, arguments in trials(widths, dtype, device):
        try:
            off = apart(getattr(ops, name), getattr(plain, name), arguments)
        except torch.OutOfMemoryError:
            raise
        # A kernel that does not compile raises what Triton, the C compiler or the driver makes of it.
        except Exception as error:
            return f"The operation '{name}' does not run: {type(error).__name__}: {error}"
        if not off <= TOLERANCE.get(dtype, HALF_TOLERANCE):  # NaN is no agreement
            return f"The operation '{name}' is off by {off:.1e} of its result."
    return None


def apart(operation: Callable[..., Tensor], twin: Callable[..., Tensor], arguments: list[Any]) -> float:
    """Returns how far results, (..., N), are apart, and tensors that are changed in place."""
    ours, theirs = _copies(arguments), _copies(arguments)
    pairs = [(operation(*ours), twin(*theirs)), *zip(ours, theirs, strict=True)]
    tensors = [(a, b) for a, b in pairs if isinstance(a, Tensor) and a.is_floating_point()]
    return max(
        float((a.float() - b.float()).norm()) / max(float(b.float().norm()), torch.finfo(torch.float32).tiny)
        for a, b in tensors
    )


def _copies(arguments: list[Any]) -> list[Any]:
    return [each.clone() if isinstance(each, Tensor) else each for each in arguments]


def trials(widths: Widths, dtype: torch.dtype, device: torch.device) -> list[tuple[str, list[Any]]]:
    """Returns the operations with random arguments."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    def ints(*values: int) -> Tensor:
        return torch.tensor(values, device=device)

    heads, kv_heads, head, hidden, gate = widths
    stored = [random(slots, kv_heads, width, head) for slots, width in ((GROUPS, PROMPT), (ROWS, OWN))]
    mixed, weights = random(ROWS, (heads + 2 * kv_heads) * head), (random(head), random(head))
    angles, columns = (random(ROWS, head), random(ROWS, head)), ints(0, OWN - 1, 17, 3, 0)
    # Row 4 is spare; place 1 of the first prompt is empty.
    source, place = ints(0, 0, 0, 1, 2, 3), ints(0, 3, 4, 5, 0)
    return [
        ("add_rms_norm", [random(ROWS, hidden), random(ROWS, hidden), random(hidden), 1e-6]),
        ("add_rms_norm", [random(ROWS, hidden), None, random(hidden), 1e-6]),
        ("rotate_and_keep", [mixed, *weights, 1e-6, *angles, columns, stored[1], stored[1] + 1, heads]),
        ("rotate_and_keep", [mixed, None, None, 0.0, *angles, columns, stored[1], stored[1] + 1, heads]),
        ("gated_silu", [random(ROWS, 2 * gate)]),
        (
            "decode_attention",
            [
                *(random(ROWS, heads, head), stored[0], stored[0] + 1, stored[1], stored[1] + 1),
                *(ints(PROMPT, 33), columns, source, place, PROMPT, OWN, head**-0.5),
            ],
        ),
    ]
