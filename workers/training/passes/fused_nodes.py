"""What a decoder does between its products, as nodes of the autograd graph that are one compiled kernel each.

They are for contiguous fp32 tensors on a CPU (kernels/rows.py). N tokens or rows, H wide states.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

LEAST_ROWS = 64
"""Rows for which another thread is worth its while. Measured with cherry-nano's widths: they take 43 to
100 us, handing work to a thread takes 19 to 47 (docs/benchmarks.md).
"""


def norm(module: Any, states: Tensor) -> Tensor:
    """Computes the module's RMSNorm: (..., H) -> (..., H).

    Source: Zhang and Sennrich 2019, arXiv:1910.07467.
    """
    normed: Tensor = _Norm.apply(states, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return normed


def add_and_norm(module: Any, states: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the sum of two (N, H) states, and its norm, (N, H)."""
    found: tuple[Tensor, Tensor] = _AddAndNorm.apply(  # type: ignore[no-untyped-call]
        states, more, module.weight, module.variance_epsilon
    )
    return found


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates (N, heads * D) in place, by (N, D) cosines and sines of positions, half of these negated.

    Source: RoPE, Su et al. 2021, arXiv:2104.09864.
    """
    rotated: Tensor = _Rotate.apply(heads, cos, sin)  # type: ignore[no-untyped-call]
    return rotated


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """Computes silu(gate) * up: (N, I), (N, I) -> (N, I).

    Source: SwiGLU, Shazeer 2020, arXiv:2002.05202.
    """
    found: Tensor = _Gated.apply(gate, up)  # type: ignore[no-untyped-call]
    return found


def _run(name: str, n: int, *args: Any) -> None:
    """Runs a kernel of rows.py over n rows."""
    from workers.training.kernels import rows, threads

    arrays = [arg.detach().numpy() if isinstance(arg, Tensor) else arg for arg in args]
    threads.in_parallel(getattr(rows, name), n, LEAST_ROWS, *arrays)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        flat = states.view(-1, states.shape[-1])
        normed, scales = torch.empty_like(states), states.new_empty(len(flat))
        _run("norm", len(flat), flat, weight, np.float32(eps), normed.view(flat.shape), scales)
        ctx.save_for_backward(states, weight, scales)
        return normed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        return *_norm_gradient(ctx, grad, None, ctx.needs_input_grad[0]), None


class _AddAndNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, more: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        total, normed = torch.empty_like(states), torch.empty_like(states)
        scales = states.new_empty(len(states))
        _run("add_and_norm", len(states), states, more, weight, np.float32(eps), total, normed, scales)
        ctx.save_for_backward(total, weight, scales)
        return total, normed

    @staticmethod
    def backward(
        ctx: Any, of_total: Tensor, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        of_states, of_weight = _norm_gradient(ctx, grad, of_total, any(ctx.needs_input_grad[:2]))
        return of_states, of_states, of_weight, None


def _norm_gradient(
    ctx: Any, grad: Tensor, also: Tensor | None, wants_states: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Returns the gradients of states and weight, from that of the norm and what states have beside it."""
    states, weight, scales = ctx.saved_tensors
    width = states.shape[-1]
    grad = grad.contiguous().view(-1, width)
    rows = states.view(-1, width)
    of_states = of_weight = None
    if weight.requires_grad:
        of_weight = (grad * rows).mul_(scales[:, None]).sum(0)
    if wants_states:
        beside = grad if also is None else also.contiguous().view(-1, width)
        found = torch.empty_like(rows)
        _run("norm_gradient", len(rows), grad, beside, also is not None, rows, weight, scales, found)
        of_states = found.view(states.shape)
    return of_states, of_weight


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.mark_dirty(heads)
        ctx.save_for_backward(cos, sin)
        _run("rotate", len(heads), heads, cos, sin, heads)
        return heads

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        grad = grad.contiguous()
        found = torch.empty_like(grad)
        _run("rotate", len(grad), grad, cos, -sin, found)  # back by the same angle
        return found, None, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        found = torch.empty_like(gate)
        _run("gated", len(gate), gate, up, found)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        of_gate, of_up = torch.empty_like(gate), torch.empty_like(up)
        _run("gated_gradient", len(gate), grad.contiguous(), gate, up, of_gate, of_up)
        return of_gate, of_up
