"""Drawing tokens from logits: inverse CDF in fp32, with a uniform number for each row."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BLOCK = 128
"""Tokens whose probabilities are first added up together: one long running sum is slow and less exact.
Chosen, not measured for tensors; for the kernel it hardly matters (docs/benchmarks.md).
"""

LEAST_NUMBERS = 1 << 16
"""Logits for which another thread pays. Measured: they take 0.2 ms and more, handing work to a thread
takes 19 to 47 us (docs/benchmarks.md).
"""


def draw(logits: Tensor, uniform: Tensor, temperature: float, top_p: float = 1.0) -> tuple[Tensor, Tensor]:
    """Draws one token for each row, and returns its log-probability: (B, V), (B,) -> (B,), (B,), nats.

    A token of probability 0 is never drawn. Temperature 0 takes the most likely token. With `top_p` below 1
    the draw is among the most likely tokens that together reach it (nucleus sampling, Holtzman et al. 2019,
    arXiv:1904.09751). Log-probabilities are those of the whole distribution, at temperature 1 for greedy.
    """
    logits = logits.float()
    if temperature == 0:
        most, tokens = logits.max(-1)
        return tokens, most - logits.logsumexp(-1)
    if logits.device.type == "cpu" and top_p >= 1:
        return _by_kernel(logits, uniform, temperature)
    logits = logits if temperature == 1 else logits / temperature
    if top_p < 1:
        return _from_nucleus(logits, uniform, top_p)
    probs = torch.softmax(logits, -1)
    tokens = inverse_cdf(probs, uniform)
    return tokens, probs.gather(-1, tokens[:, None])[:, 0].log()


def _by_kernel(logits: Tensor, uniform: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    from workers.training.kernels import draw as kernel
    from workers.training.kernels import threads

    tokens, logprobs = torch.empty(len(logits), dtype=torch.long), torch.empty(len(logits))
    threads.in_parallel(
        kernel.draw,
        len(logits),
        max(1, LEAST_NUMBERS // logits.shape[1]),
        logits.contiguous().numpy(),
        uniform.numpy(),
        np.float32(temperature),
        tokens.numpy(),
        logprobs.numpy(),
    )
    return tokens, logprobs


def inverse_cdf(probs: Tensor, uniform: Tensor) -> Tensor:
    """Returns the first token at which the running sum passes `uniform` times the total.

    (B, V) probabilities, (B,) -> (B,).
    """
    B, V = probs.shape
    padded = torch.nn.functional.pad(probs, (0, -V % BLOCK)) if V % BLOCK else probs
    blocks = padded.view(B, -1, BLOCK)
    sums = blocks.sum(-1).cumsum(-1)
    aim = uniform * sums[:, -1]  # below the total, since uniform <= 1 - 2**-24
    block = _passed(sums, aim)
    before = torch.nn.functional.pad(sums, (1, 0)).gather(-1, block[:, None])[:, 0]
    inside = blocks[torch.arange(B, device=probs.device), block].cumsum(-1)
    # Sums taken in another order differ in the last bits: the aim must stay below the block's own total.
    rest = torch.minimum(aim - before, torch.nextafter(inside[:, -1], torch.zeros_like(aim)))
    return (block * BLOCK + _passed(inside, rest)).clamp(max=V - 1)  # matters for NaN alone


def _from_nucleus(logits: Tensor, uniform: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    ordered, ids = logits.sort(stable=True, dim=-1, descending=True)  # probabilities would have more ties
    probs = torch.softmax(ordered, -1)
    sums = probs.cumsum(-1)
    kept = (sums - probs < top_p).sum(-1, keepdim=True)  # at least the most likely
    aim = uniform * sums.gather(-1, kept - 1)[:, 0]
    place = _passed(sums, aim)[:, None]
    return ids.gather(-1, place)[:, 0], probs.gather(-1, place)[:, 0].log()


def _passed(sums: Tensor, aim: Tensor) -> Tensor:
    """Returns the index of the first running sum above `aim`: (B, N), (B,) -> (B,)."""
    found: Tensor = torch.searchsorted(sums, aim[:, None], right=True)[:, 0]
    return found.clamp(max=sums.shape[-1] - 1)  # matters for NaN alone
