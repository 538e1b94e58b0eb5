"""What a decoder does with each token's states between its products: norm, rotation, gate.

N tokens, H wide states, D wide heads, I wide inner states. Each kernel does rows `first` to `last`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from workers.training.kernels import compiled
from workers.training.kernels.exponential import exp

Floats = NDArray[np.float32]

ZERO, ONE = np.float32(0), np.float32(1)


@compiled
def norm_row(x: Floats, weight: Floats, eps: np.float32, normed: Floats) -> np.float32:
    """Computes the RMSNorm of one row, (H,), which may be in place; returns one over its root mean square."""
    total = ZERO
    for j in range(len(x)):
        total += x[j] * x[j]
    scale = ONE / np.float32(math.sqrt(total / np.float32(len(x)) + eps))
    for j in range(len(x)):
        normed[j] = x[j] * scale * weight[j]
    return scale


@compiled
def norm(
    first: int, last: int, states: Floats, weight: Floats, eps: np.float32, normed: Floats, scales: Floats
) -> None:
    """Computes the RMSNorm of (N, H) states, and (N,) one over their root mean squares.

    Source: Zhang and Sennrich 2019, arXiv:1910.07467.
    """
    for i in range(first, last):
        scales[i] = norm_row(states[i], weight, eps, normed[i])


@compiled
def add_and_norm(
    first: int,
    last: int,
    states: Floats,
    more: Floats,
    weight: Floats,
    eps: np.float32,
    total: Floats,
    normed: Floats,
    scales: Floats,
) -> None:
    """Adds two (N, H) states, and does as `norm` with their sum."""
    for i in range(first, last):
        a, b, c = states[i], more[i], total[i]
        for j in range(len(a)):
            c[j] = a[j] + b[j]
        scales[i] = norm_row(c, weight, eps, normed[i])


@compiled
def norm_gradient(
    first: int,
    last: int,
    grad: Floats,
    also: Floats,
    has_also: bool,
    states: Floats,
    weight: Floats,
    scales: Floats,
    found: Floats,
) -> None:
    """Computes the gradient of the (N, H) states from that of their norm.

    What they may have from elsewhere, `also`, is added.
    """
    for i in range(first, last):
        g, more, x, out = grad[i], also[i], states[i], found[i]
        along = ZERO
        for j in range(len(x)):
            along += g[j] * weight[j] * x[j]
        scale = scales[i]
        back = along * scale * scale * scale / np.float32(len(x))
        for j in range(len(x)):
            beside = more[j] if has_also else ZERO
            out[j] = beside + g[j] * weight[j] * scale - x[j] * back


@compiled
def rotate(first: int, last: int, heads: Floats, cos: Floats, sin: Floats, rotated: Floats) -> None:
    """Rotates (N, heads * D) by position: (N, D) cosines and sines, the first half of these negated.

    `rotated` may be `heads`. Source: RoPE, Su et al. 2021, arXiv:2104.09864.
    """
    width = cos.shape[1]
    half = width // 2
    for i in range(first, last):
        c, s = cos[i], sin[i]
        for at in range(0, heads.shape[1], width):
            low, high = heads[i, at : at + half], heads[i, at + half : at + width]
            new_low, new_high = rotated[i, at : at + half], rotated[i, at + half : at + width]
            for j in range(half):
                x, y = low[j], high[j]
                new_low[j] = x * c[j] + y * s[j]
                new_high[j] = y * c[half + j] + x * s[half + j]


@compiled
def gated(first: int, last: int, gate: Floats, up: Floats, found: Floats) -> None:
    """Computes SwiGLU: silu(gate) * up, (N, I) each.

    Source: Shazeer 2020, arXiv:2002.05202.
    """
    for i in range(first, last):
        g, u, out = gate[i], up[i], found[i]
        for j in range(len(g)):
            x = g[j]
            out[j] = x / (ONE + exp(-x)) * u[j]


@compiled
def gated_gradient(
    first: int, last: int, grad: Floats, gate: Floats, up: Floats, of_gate: Floats, of_up: Floats
) -> None:
    """Computes the gradients of both, (N, I) each, from that of `gated`."""
    for i in range(first, last):
        d, g, u, a, b = grad[i], gate[i], up[i], of_gate[i], of_up[i]
        for j in range(len(g)):
            x = g[j]
            sigmoid = ONE / (ONE + exp(-x))
            b[j] = d[j] * x * sigmoid
            a[j] = d[j] * u[j] * sigmoid * (ONE + x * (ONE - sigmoid))
