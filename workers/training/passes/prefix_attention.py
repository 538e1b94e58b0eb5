"""Attention over a packed stream on a CPU in fp32, by a compiled kernel (kernels/attention.py).

H query heads, K key/value heads, N tokens of the stream, D wide heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Layout(NamedTuple):
    """Holds P groups of a stream as the kernel reads them.

    Attributes:
        starts: (P,) the first token of each.
        firsts: (P + 1,) where in `lengths` each begins.
        lengths: tokens of each group's prompt, then of its completions.
    """

    starts: NDArray[np.int64]
    firsts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def make_layout(segments: Sequence[tuple[int, int, tuple[int, ...]]]) -> Layout:
    """Lays out (start, tokens of the prompt, tokens of each completion) of every group in a stream."""
    runs = [(prompt, *completions) for _, prompt, completions in segments]
    return Layout(
        np.array([start for start, *_ in segments], np.int64),
        np.array([*accumulate(map(len, runs), initial=0)], np.int64),
        np.array([length for lengths in runs for length in lengths], np.int64),
    )


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float) -> Tensor:
    """Computes (N, H, D) queries, (N, K, D) keys and values -> (N, H, D)."""
    found: Tensor = _Attention.apply(query, key, value, layout, scaling)  # type: ignore[no-untyped-call]
    return found


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float
    ) -> Tensor:
        from workers.training.kernels import attention, threads

        operands = query.contiguous(), key.contiguous(), value.contiguous()
        out, sums = torch.empty_like(operands[0]), query.new_empty(query.shape[:2])
        arrays = [*(tensor.numpy() for tensor in operands), np.float32(scaling), out.numpy(), sums.numpy()]
        threads.in_parallel(attention.attend, len(layout.starts) * key.shape[1], 1, *layout, *arrays)
        ctx.save_for_backward(*operands, out, sums)
        ctx.layout, ctx.scaling = layout, scaling
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from workers.training.kernels import attention, threads

        *operands, out, sums = ctx.saved_tensors
        found = [torch.empty_like(tensor) for tensor in operands]
        arrays = [tensor.numpy() for tensor in (out, sums, grad.contiguous(), *found)]
        threads.in_parallel(
            attention.attend_gradient,
            len(ctx.layout.starts) * operands[1].shape[1],
            1,
            *ctx.layout,
            *(tensor.numpy() for tensor in operands),
            np.float32(ctx.scaling),
            *arrays,
        )
        return *found, None, None
