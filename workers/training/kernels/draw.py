"""Drawing a token for each row of logits, in three passes over the row."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from workers.training.kernels import compiled
from workers.training.kernels.softmax import exponentials, largest

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

BLOCK = 128
"""Tokens whose probabilities are first added up together: one long running sum is slow and less exact.
Measured for 32 rows: 32 to 512 are alike within noise (docs/benchmarks.md).
"""

ZERO, LOWEST = np.float32(0), np.float32(-np.inf)


@compiled
def draw(
    first: int,
    last: int,
    logits: Floats,
    uniform: Floats,
    temperatures: Floats,
    tokens: Ints,
    logprobs: Floats,
) -> None:
    """Draws from (B, V) logits by (B,) uniform numbers; writes (B,) tokens and (B,) logprobs, in nats.

    The token is the first at which the running sum of the probabilities, at the row's temperature, which is
    above 0, passes `uniform` times their total.
    """
    V = logits.shape[1]
    probs = np.empty(V, np.float32)
    sums = np.empty((V + BLOCK - 1) // BLOCK, np.float64)
    for b in range(first, last):
        temperature = temperatures[b]
        top = largest(logits[b], LOWEST)
        for i in range(V):
            probs[i] = (logits[b, i] - top) / temperature
        total = 0.0
        for block in range(len(sums)):
            total += float(exponentials(probs[block * BLOCK : (block + 1) * BLOCK], ZERO))
            sums[block] = total
        token = _passed(probs, sums, uniform[b] * total)
        tokens[b] = token
        logprobs[b] = (logits[b, token] - top) / temperature - np.float32(math.log(total))


@compiled
def _passed(probs: Floats, sums: NDArray[np.float64], aim: float) -> int:
    """Returns the first token at which the running sum is above `aim`, by the running `sums` of blocks."""
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
