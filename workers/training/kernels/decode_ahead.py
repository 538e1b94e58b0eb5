"""Several decode steps in a call, each with its draw, where completions need nothing from the host.

Shapes as in `kernels.decode`; S steps at most.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.training.kernels import compiled
from workers.training.kernels.attend import KeyValueArrays, Rows
from workers.training.kernels.decode import Weights, decode
from workers.training.kernels.draw import draw
from workers.training.kernels.low_rank import Adapters

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Draws(NamedTuple):
    """Holds what tokens are drawn by, and those that were.

    Attributes:
        uniforms: (S, B) numbers in [0, 1), by slot.
        temperatures: (B,), above 0.
        bias_from: (B + 1,) where each row's biases start in `bias_ids` and `bias_values`, which are added to
            the logits of these tokens.
        is_end: (V,) whether a token ends its completion.
        tokens, logprobs: (S, B), which are written; in nats.
    """

    uniforms: Floats
    temperatures: Floats
    bias_from: Ints
    bias_ids: Ints
    bias_values: Floats
    is_end: NDArray[np.bool_]
    tokens: Ints
    logprobs: Floats


@compiled
def decode_ahead(
    rows: Rows,
    ids: Ints,
    weights: Weights,
    adapters: Adapters,
    prompts: KeyValueArrays,
    completions: KeyValueArrays,
    logits: Floats,
    draws: Draws,
) -> int:
    """Decodes and draws token after token for all completions; returns how many each was given.

    It ends behind the first step at which one is drawn that ends its completion, or whose logprob is no
    number. `ids` (B,), the last token of each, and `rows.counts` follow.
    """
    n = len(ids)
    for step in range(len(draws.uniforms)):
        decode(0, n, rows, ids, weights, adapters, prompts, completions, logits)
        for b in range(n):
            for i in range(draws.bias_from[b], draws.bias_from[b + 1]):
                logits[b, draws.bias_ids[i]] += draws.bias_values[i]
        tokens, logprobs = draws.tokens[step], draws.logprobs[step]
        draw(0, n, logits, draws.uniforms[step], draws.temperatures, tokens, logprobs)
        is_over = False
        for b in range(n):
            ids[b] = tokens[b]
            rows.counts[b] += 1
            is_over = is_over or draws.is_end[tokens[b]] or np.isnan(logprobs[b])
        if is_over:
            return step + 1
    return len(draws.uniforms)
