"""The softmax over a chunk of logits as one operation, `cherry::softmax_step`: on a GPU by Triton.

It gives log-probabilities and entropies, and leaves in place of the logits what the log-probabilities'
gradient by them is, so that the states' gradient is one product away. n rows, V tokens in the vocabulary.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor

log = logging.getLogger(__name__)

TOLERANCE = 1e-2
"""The difference from plain PyTorch's results, relative to their norm, from which a GPU's kernel is not used.
Chosen: rounding of bf16 gradients is 4e-3 at most.
"""


@torch.library.custom_op("cherry::softmax_step", mutates_args=("logits",))
def softmax_step(
    logits: Tensor, targets: Tensor, temperature: float, wants_slopes: bool
) -> tuple[Tensor, Tensor]:
    """Returns the log-probability of each target and the entropy of each row, (n,) each, fp32, nats.

    Args:
        logits: (n, V), contiguous rows; (one of target - probability) / temperature afterwards, if wanted.
        targets: (n,) token ids.
        temperature: of the distribution.
        wants_slopes: whether the logits are replaced; else they are left in any state.
    """
    return plain_step(logits, targets, temperature, wants_slopes)


@softmax_step.register_fake
def _fake(logits: Tensor, targets: Tensor, temperature: float, wants_slopes: bool) -> tuple[Tensor, Tensor]:
    del targets, temperature, wants_slopes
    wide = torch.promote_types(logits.dtype, torch.float32)
    return logits.new_empty(len(logits), dtype=wide), logits.new_empty(len(logits), dtype=wide)


@softmax_step.register_kernel("cuda")
def _on_gpu(logits: Tensor, targets: Tensor, temperature: float, wants_slopes: bool) -> tuple[Tensor, Tensor]:
    if logits.dtype == torch.float64 or not has_kernel(logits.dtype, logits.device):
        return plain_step(logits, targets, temperature, wants_slopes)
    from workers.training.passes import triton_softmax

    return triton_softmax.softmax_step(logits, targets, temperature, wants_slopes)


def plain_step(
    logits: Tensor, targets: Tensor, temperature: float, wants_slopes: bool
) -> tuple[Tensor, Tensor]:
    """Is `softmax_step` in plain PyTorch, in fp32 or above: (n, V) -> (n,) each.

    It takes two more tensors of the logits' size.
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    logprobs = torch.log_softmax(logits.to(wide) / temperature, -1)
    found = logprobs.gather(-1, targets[:, None])[:, 0]
    probs = logprobs.exp()
    entropies = -torch.linalg.vecdot(probs, logprobs)
    if wants_slopes:
        slopes = probs.neg_().scatter_add_(-1, targets[:, None], torch.ones_like(found)[:, None])
        logits.copy_(slopes.div_(temperature))
    return found, entropies


@cache
def has_kernel(dtype: torch.dtype, device: torch.device) -> bool:
    """Says whether Triton's kernel is right on a GPU: tried once, on rows of one block and of several."""
    from workers.training.passes import triton_softmax

    try:
        why = fault_of(triton_softmax.softmax_step, dtype, device)
    except torch.OutOfMemoryError:
        raise
    # A kernel that does not compile raises what its compiler, the C compiler or the driver makes of it.
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
    if why is not None:
        log.warning("softmax_without_kernel", extra={"reason": why})
    return why is None


def fault_of(step: object, dtype: torch.dtype, device: torch.device) -> str | None:
    """Returns how results of another `softmax_step` differ from the plain one's, if they do."""
    assert callable(step)
    generator = torch.Generator().manual_seed(0)
    for vocabulary in (97, 10_001):
        logits = (3 * torch.randn(5, vocabulary, generator=generator)).to(device, dtype)
        targets = torch.randint(vocabulary, (5,), generator=generator).to(device)
        left = logits.clone()
        found = [*step(left, targets, 0.7, True), left]
        expected = [*plain_step(logits, targets, 0.7, True), logits]
        apart = [
            float((a.float() - b.float()).norm() / b.float().norm())
            for a, b in zip(found, expected, strict=True)
        ]
        if not max(apart) <= TOLERANCE:  # NaN is no agreement
            return f"Results are {max(apart):.1e} of their size off."
    return None
