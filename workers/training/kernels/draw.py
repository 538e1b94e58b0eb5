"""Draw a token for each row of logits, in three passes over the row."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from workers.training.kernels import compiled
from workers.training.kernels.exponential import exponentiate, highest

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

BLOCK = 128
"""Tokens whose probabilities are first added up together: one long running sum is slow and less exact."""

ZERO = np.float32(0)


@compiled
def draw(logits: Floats, uniform: Floats, temperature: np.float32, tokens: Ints, logprobs: Floats) -> None:
    """(B, V), (B,) -> (B,), (B,): the first token at which the running sum of the probabilities at a
    temperature above 0 passes `uniform` times their total."""
    B, V = logits.shape
    probs = np.empty(V, np.float32)
    sums = np.empty((V + BLOCK - 1) // BLOCK, np.float64)
    for b in range(B):
        most = highest(logits[b])
        for i in range(V):
            probs[i] = (logits[b, i] - most) / temperature
        total = 0.0
        for block in range(len(sums)):
            total += float(exponentiate(probs[block * BLOCK : (block + 1) * BLOCK], ZERO))
            sums[block] = total
        token = _passed(probs, sums, uniform[b] * total)
        tokens[b] = token
        logprobs[b] = (logits[b, token] - most) / temperature - np.float32(math.log(total))


@compiled
def _passed(probs: Floats, sums: NDArray[np.float64], aim: float) -> int:
    """The first token at which the running sum is above `aim`, found by the running `sums` of blocks."""
    block = 0
    while block < len(sums) - 1 and sums[block] <= aim:
        block += 1
    found = block * BLOCK
    running = sums[block - 1] if block > 0 else 0.0
    for i in range(found, min(len(probs), found + BLOCK)):
        running += probs[i]
        if probs[i] > ZERO:  # sums in another order differ in the last bits: the block's last, if none passes
            found = i
            if running > aim:
                break
    return found
