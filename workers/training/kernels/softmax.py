"""Log-probabilities and their slopes from logits, row by row."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from workers.training.kernels import compiled, compiled_blind_to_nan
from workers.training.kernels.exponential import exp

Floats = NDArray[np.float32]

ZERO = np.float32(0)
LOWEST = np.float32(np.finfo(np.float32).min)


@compiled_blind_to_nan
def largest(row: Floats, top: np.float32) -> np.float32:
    """Returns the largest of a row's numbers, (N,), and `top`."""
    for j in range(len(row)):
        x = row[j]
        top = x if x > top else top
    return top


@compiled
def exponentials(row: Floats, top: np.float32) -> np.float32:
    """Puts exp(x - top) in the place of each number of a row, (N,); returns their sum."""
    total = ZERO
    for j in range(len(row)):
        e = exp(row[j] - top)
        row[j] = e
        total += e
    return total


@compiled
def target_logprobs(
    first: int,
    last: int,
    logits: Floats,
    targets: NDArray[np.int64],
    factor: np.float32,
    logprobs: Floats,
    entropies: Floats,
    wants_slopes: bool,
) -> None:
    """Computes the log-softmax of (N, V) logits times `factor` at the targets, and the entropy: (N,), nats.

    It overwrites the logits: with the slopes of the log-probability, if they are wanted.
    """
    for i in range(first, last):
        row = logits[i]
        target = targets[i]
        top = largest(row, np.float32(-np.inf))
        wanted = (row[target] - top) * factor
        total = ZERO
        weighted = ZERO
        for j in range(len(row)):
            x = (row[j] - top) * factor
            e = exp(x)
            row[j] = e
            total += e
            weighted += e * max(x, LOWEST)  # 0 times minus infinity
        log_total = np.float32(math.log(total))
        logprobs[i] = wanted - log_total
        entropies[i] = log_total - weighted / total
        if wants_slopes:
            share = -factor / total
            for j in range(len(row)):
                row[j] *= share
            row[target] += factor
