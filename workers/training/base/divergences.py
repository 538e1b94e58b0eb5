"""Estimates of the KL between two policies, as pure functions. N tokens, V the vocabulary; all values in
nats.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kl_k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Estimates KL(policy || reference) from sampled tokens: unbiased, may be negative.

    (N,), (N,) -> (N,), nats.

    As a cost of the tokens (without gradient) its policy gradient is that of the exact KL.

    Source: Schulman 2020, "Approximating KL divergence" (joschu.net/blog/kl-approx.html), estimator k1.
    """
    return (logprobs - ref_logprobs).detach()


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Estimates KL(policy || reference) from sampled tokens: unbiased, never negative.

    (N,), (N,) -> (N,), nats.

    Source: Schulman 2020, "Approximating KL divergence" (joschu.net/blog/kl-approx.html), estimator k3.
    """
    log_ratio = ref_logprobs - logprobs
    return torch.expm1(log_ratio) - log_ratio  # expm1: exact to the last digits near 0


def kl_exact(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """Returns KL(policy || reference) over the whole vocabulary: (N, V), (N, V) -> (N,), nats."""
    logprobs = torch.log_softmax(logits.float(), -1)
    ref_logprobs = torch.log_softmax(ref_logits.float(), -1)
    return (logprobs.exp() * (logprobs - ref_logprobs)).sum(-1).clamp(min=0)
