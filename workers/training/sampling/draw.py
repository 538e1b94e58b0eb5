"""Drawing tokens from logits: inverse CDF in fp32, with a uniform number for each row."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]

Way = Literal["greedy", "plain", "nucleus"]
"""How a token is drawn: the most likely one, among all, or among the most likely ones that reach `top_p`."""

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
        return _by_kernel(logits, uniform, np.full(len(logits), temperature, np.float32))
    logits = logits if temperature == 1 else logits / temperature
    return _from_nucleus(logits, uniform, top_p) if top_p < 1 else _from_all(logits, uniform)


def way_of_drawing(temperature: float, top_p: float) -> Way:
    """Returns how `draw` draws."""
    if temperature == 0:
        return "greedy"
    return "nucleus" if top_p < 1 else "plain"


def draw_by_tensors(
    way: Way, logits: Tensor, uniform: Tensor, temperature: Tensor, top_p: Tensor
) -> tuple[Tensor, Tensor]:
    """Draws as `draw` does on a GPU, by tensors of one number for `temperature` and `top_p`.

    No value is looked at on the host, so a graph can hold it: (B, V), (B,), (1,), (1,) -> (B,), (B,), nats.
    """
    if way == "greedy":
        return draw(logits, uniform, 0.0)
    scaled = logits.float() / temperature
    return _from_nucleus(scaled, uniform, top_p) if way == "nucleus" else _from_all(scaled, uniform)


def draw_each(logits: Tensor, uniform: Tensor, temperatures: Floats, top_ps: Floats) -> tuple[Tensor, Tensor]:
    """Draws as `draw` does, each row with its own of (B,) temperatures and top_ps.

    A row's draw is what `draw` gives it, to the bit on a CPU.
    """
    greedy, cut = temperatures == 0, (temperatures > 0) & (top_ps < 1)
    if not (greedy.any() or cut.any()) and logits.device.type == "cpu":
        return _by_kernel(logits.float(), uniform, temperatures)
    if greedy.all():
        return draw(logits, uniform, 0.0)
    tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    logprobs = torch.empty(len(logits), device=logits.device)
    for rows, how in ((greedy, _greedy_rows), (cut, _cut_rows), (~(greedy | cut), _plain_rows)):
        if rows.any():
            at = torch.from_numpy(rows.nonzero()[0]).to(logits.device)
            tokens[at], logprobs[at] = how(logits[at].float(), uniform[at], temperatures[rows], top_ps[rows])
    return tokens, logprobs


def _greedy_rows(logits: Tensor, uniform: Tensor, _: Floats, __: Floats) -> tuple[Tensor, Tensor]:
    return draw(logits, uniform, 0.0)


def _cut_rows(logits: Tensor, uniform: Tensor, temperatures: Floats, top_ps: Floats) -> tuple[Tensor, Tensor]:
    top_p = torch.from_numpy(top_ps).to(logits.device)[:, None]
    return _from_nucleus(_tempered(logits, temperatures), uniform, top_p)


def _plain_rows(logits: Tensor, uniform: Tensor, temperatures: Floats, _: Floats) -> tuple[Tensor, Tensor]:
    if logits.device.type == "cpu":
        return _by_kernel(logits, uniform, temperatures)
    return draw(_tempered(logits, temperatures), uniform, 1.0)


def _tempered(logits: Tensor, temperatures: Floats) -> Tensor:
    return logits / torch.from_numpy(temperatures).to(logits.device)[:, None]


def _by_kernel(logits: Tensor, uniform: Tensor, temperatures: Floats) -> tuple[Tensor, Tensor]:
    from workers.training.kernels import draw as kernel
    from workers.training.kernels import threads

    tokens, logprobs = torch.empty(len(logits), dtype=torch.long), torch.empty(len(logits))
    threads.in_parallel(
        kernel.draw,
        len(logits),
        max(1, LEAST_NUMBERS // logits.shape[1]),
        logits.contiguous().numpy(),
        uniform.numpy(),
        temperatures,
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


def _from_all(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    probs = torch.softmax(logits, -1)
    tokens = inverse_cdf(probs, uniform)
    return tokens, probs.gather(-1, tokens[:, None])[:, 0].log()


def _from_nucleus(logits: Tensor, uniform: Tensor, top_p: float | Tensor) -> tuple[Tensor, Tensor]:
    ordered, ids = logits.sort(stable=True, dim=-1, descending=True)  # probabilities would have more ties
    probs = torch.softmax(ordered, -1)
    sums = probs.cumsum(-1)
    kept = (sums - probs < top_p).sum(-1, keepdim=True).clamp(min=1)  # the most likely, also at 0
    aim = uniform * sums.gather(-1, kept - 1)[:, 0]
    place = _passed(sums, aim)[:, None]
    return ids.gather(-1, place)[:, 0], probs.gather(-1, place)[:, 0].log()


def _passed(sums: Tensor, aim: Tensor) -> Tensor:
    """Returns the index of the first running sum above `aim`: (B, N), (B,) -> (B,)."""
    found: Tensor = torch.searchsorted(sums, aim[:, None], right=True)[:, 0]
    return found.clamp(max=sums.shape[-1] - 1)  # matters for NaN alone
