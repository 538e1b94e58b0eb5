"""Whether a GPU's variable-length attention is right, found out once for each shape of heads.

What it is compared with is the same in plain PyTorch on the same device (varlen_attention.py). Where it
raises, is not compiled for the card, or differs, attention runs tile by tile (packed_attention.py), which is
logged.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor

from workers.training.passes.varlen_attention import (
    attend_parts,
    gradients,
    make_layout,
    plain_backward,
    plain_forward,
)

log = logging.getLogger(__name__)

WIDEST = 256
"""Numbers in the widest head. Chosen as FlashAttention-2's source has it; it also wants a multiple of 8."""

TOLERANCE = 2e-2
"""The difference of outputs and gradients from those in fp32, relative to their norm, from which a GPU's
kernels are not used. Chosen: rounding to bf16 is 4e-3, a wrong mask makes 1e-1.
"""

SEGMENTS = ((0, 70, (40, 1, 0, 130)), (241, 5, (9,)), (255, 1, (3, 200)))
"""The groups of the trial. Chosen: shorter and longer than a kernel's block (128), alone and empty too."""


@cache
def is_right(
    heads: int, key_heads: int, width: int, value_width: int, dtype: torch.dtype, device: torch.device
) -> bool:
    """Says whether queries of so many heads can attend to such keys and values without masks."""
    try:
        why = _fault(heads, key_heads, width, value_width, dtype, device)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        why = str(error).partition("\n")[0]
    if why is not None:
        log.warning("attention_by_tiles", extra={"reason": why})
    return why is None


@torch.no_grad()
def _fault(
    heads: int, key_heads: int, width: int, value_width: int, dtype: torch.dtype, device: torch.device
) -> str | None:
    if width != value_width:
        return f"Values are {value_width} wide and keys {width}."
    if width % 8 or width > WIDEST:
        return f"Heads are {width} wide, which is no multiple of 8 or above {WIDEST}."
    generator = torch.Generator().manual_seed(0)
    n = sum(prompt + sum(completions) for _, prompt, completions in SEGMENTS)

    def random(of_heads: int) -> Tensor:
        return torch.randn(n, of_heads, width, generator=generator).to(device, dtype)

    operands, grad = (random(heads), random(key_heads), random(key_heads)), random(heads)
    layout, scaling = make_layout(SEGMENTS, device), width**-0.5
    out, sums = attend_parts(operands, layout, scaling)
    found = out, sums, *gradients(grad, operands, out, sums, layout, scaling)
    wide = [operand.float() for operand in operands]
    exact, exact_sums = attend_parts(wide, layout, scaling, plain_forward)
    slopes = gradients(grad.float(), wide, exact, exact_sums, layout, scaling, plain_backward)
    expected = exact, exact_sums, *slopes
    apart = torch.stack([(a.float() - b).norm() / b.norm() for a, b in zip(found, expected, strict=True)])
    most = float(apart.max())  # the one time that the host waits
    return None if most <= TOLERANCE else f"Results are {most:.1e} of their size off."
