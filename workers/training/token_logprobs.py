"""Log-probability, entropy and KL of each token, from states and an output layer.

Logits exist for some tokens at a time, because a whole batch of them would be the largest tensor of a run.
The softmax is in fp32 whatever the model computes in. N tokens, H wide states, V tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from workers.training.constraint import Allowed
from workers.training.losses import kl_exact

LOGIT_BYTES = 128 * 2**20
"""Size of the fp32 logits that exist at the same time. A few tensors of this size are needed beside them."""


def token_logprobs(
    states: Tensor, head: Any, targets: Tensor, temperature: float, allowed: Allowed | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target at the sampling temperature, and the entropy (no gradient). (N,) each.

    Both are those of the distribution over the `allowed` tokens, or over all.
    One chunk of logits keeps its probabilities for the backward pass; of several, each is computed again.
    """
    chunks = _chunks(states, head)
    run: Callable[..., tuple[Tensor, Tensor]] = _chunk_logprobs
    if torch.is_grad_enabled() and len(chunks) > 1:
        run = partial(checkpoint, _chunk_logprobs, use_reentrant=False, preserve_rng_state=False)
    found = []
    size = len(chunks[0])
    masks = allowed.split(size) if allowed else [None] * len(chunks)
    for part, wanted, mask in zip(chunks, torch.split(targets, size), masks, strict=True):
        found.append(run(part, head, wanted, temperature, mask))
    logprobs, entropies = zip(*found, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


@torch.no_grad()
def token_kl(states: Tensor, head: Any, ref_states: Tensor, ref_head: Any) -> Tensor:
    """Exact KL(policy || reference) over the vocabulary at each token, temperature 1. (N,)."""
    chunks = _chunks(states, head)
    pairs = zip(chunks, torch.split(ref_states, len(chunks[0])), strict=True)
    return torch.cat([kl_exact(head(part), ref_head(ref_part)) for part, ref_part in pairs])


def _chunks(states: Tensor, head: Any) -> Sequence[Tensor]:
    """(N, H) states in as few even parts as `LOGIT_BYTES` allows."""
    most = max(1, LOGIT_BYTES // (4 * head.weight.shape[0]))
    n_parts = max(1, -(-len(states) // most))
    return torch.split(states, max(1, -(-len(states) // n_parts)))


def _chunk_logprobs(
    states: Tensor, head: Any, targets: Tensor, temperature: float, allowed: Allowed | None
) -> tuple[Tensor, Tensor]:
    logits = head(states) if allowed is None else allowed.apply(head(states))
    logprobs, entropy = _Logprobs.apply(logits, targets, temperature)  # type: ignore[no-untyped-call]
    return logprobs, entropy


class _Logprobs(torch.autograd.Function):
    """Log-softmax at the targets, with two tensors of the size of the logits instead of six."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        scaled = logits.float() if temperature == 1 else logits.float() / temperature
        logprobs = torch.log_softmax(scaled, -1)
        probs = logprobs.exp()
        entropy = -torch.linalg.vecdot(probs, logprobs)
        ctx.save_for_backward(probs, targets)
        ctx.temperature, ctx.dtype = temperature, logits.dtype
        ctx.mark_non_differentiable(entropy)
        return logprobs.gather(-1, targets[:, None])[:, 0], entropy

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        probs, targets = ctx.saved_tensors
        gradient = (gradient / ctx.temperature)[:, None]
        of_logits = probs * -gradient
        of_logits.scatter_add_(-1, targets[:, None], gradient)
        return of_logits.to(ctx.dtype), None, None
