"""Losses and divergences as pure functions: tensors in, tensors out.

N is the number of completion tokens, laid end to end; V the vocabulary. Logprobs and KL are in nats.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TokenLoss(NamedTuple):
    """Per token, (N,): the loss to add up, and what it was made of (without gradient)."""

    loss: Tensor
    ratio: Tensor
    is_clipped: Tensor
    kl: Tensor


def grpo_loss(
    logprobs: Tensor,
    rollout_logprobs: Tensor,
    ref_logprobs: Tensor,
    advantages: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    beta: float,
) -> TokenLoss:
    """The clipped surrogate with a KL penalty; add it up and divide by the tokens of the whole step.

    loss = -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) + beta r k3,  r = policy / rollout policy

    Args:
        logprobs: (N,) by the policy now; carries the gradient.
        rollout_logprobs: (N,) when sampled.
        ref_logprobs: (N,) by the reference policy.
        advantages: (N,) of the completion each token belongs to.
        beta: weight of the KL; at 0 it is measured only.

    Sources: Shao et al. 2024, arXiv:2402.03300, equation 3; asymmetric clip and token-level mean: DAPO,
    Yu et al. 2025, arXiv:2503.14476, equations 8 and 12. Departures: the ratio is to the sampling
    logprobs themselves; k3 is multiplied by the ratio, because k3 differentiated alone is not the gradient
    of the KL (DeepSeek-V3.2, arXiv:2512.02556; TRL's `use_bias_correction_kl`).
    """
    ratio = torch.exp(logprobs - rollout_logprobs)
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = -torch.minimum(ratio * advantages, clipped * advantages)
    kl = kl_k3(logprobs, ref_logprobs)
    if beta > 0:
        loss = loss + beta * ratio * kl
    is_clipped = ((ratio < 1 - clip_low) & (advantages < 0)) | ((ratio > 1 + clip_high) & (advantages > 0))
    return TokenLoss(loss, ratio.detach(), is_clipped, kl.detach())


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Estimate KL(policy || reference) from sampled tokens: unbiased, never negative. (N,).

    Source: Schulman 2020, "Approximating KL divergence" (joschu.net/blog/kl-approx.html), estimator k3.
    """
    log_ratio = ref_logprobs - logprobs
    return torch.expm1(log_ratio) - log_ratio  # expm1: exact to the last digits near 0


def kl_exact(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """KL(policy || reference) over the whole vocabulary: (N, V), (N, V) -> (N,)."""
    logprobs = torch.log_softmax(logits.float(), -1)
    ref_logprobs = torch.log_softmax(ref_logits.float(), -1)
    return (logprobs.exp() * (logprobs - ref_logprobs)).sum(-1).clamp(min=0)
