"""Losses as pure functions: tensors in, tensors out.

N is the number of completion tokens of B completions, laid end to end. Logprobs and KL are in nats.
`docs/algorithms/` says which algorithm uses what.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from methods.train_config import TrainConfig
from workers.training.base.divergences import kl_k3


class TokenLoss(NamedTuple):
    """Holds, for each token, the loss to add up and what it was made of (without gradient), (N,) each."""

    loss: Tensor
    ratio: Tensor
    """What the surrogate bounds: the policy now over the one before the step's first update."""
    is_clipped: Tensor
    """Where the surrogate's bound was reached: the gradient is gone ("cispo": held at the bound)."""
    is_truncated: Tensor
    """Where the weight of the sampling policy was above its cap."""
    kl: Tensor
    """Estimate k3 of KL(policy || reference)."""


class Surrogate(NamedTuple):
    """Stands for the policy's improvement, (N,) each; `ratio` carries a gradient where the loss does."""

    loss: Tensor
    ratio: Tensor
    is_clipped: Tensor


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    rollout_logprobs: Tensor,
    ref_logprobs: Tensor,
    advantages: Tensor,
    lengths: Tensor,
    config: TrainConfig,
    beta: float | None = None,
) -> TokenLoss:
    """Returns each token's loss by the run's algorithm; add them up with the weights of its aggregation.

    The surrogate holds the update near the policy before it ("decoupled" objective, AReaL, arXiv:2505.24298).
    The penalty is k3 times the ratio: k3 differentiated by itself is not the gradient of the KL
    (DeepSeek-V3.2, arXiv:2512.02556).

    Args:
        logprobs: (N,) by the policy now; carries the gradient.
        old_logprobs: (N,) by the policy before the step's first update.
        rollout_logprobs: (N,) when sampled. Where the sampling policy was another (asynchronous, other
            arithmetic), each token is weighted by min(exp(old - rollout), importance_cap): truncated
            importance sampling, Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy
            RL Training".
        ref_logprobs: (N,) by the reference policy.
        advantages: (N,).
        lengths: (B,) tokens of each completion; they lie end to end.
        config: names the surrogate and its bounds.
        beta: weight of the penalty; by default the run's, and 0 where its rewards have the KL in them.
    """
    if beta is None:
        beta = config.beta if config.recipe.kl == "loss" else 0.0
    log_ratio = logprobs - old_logprobs
    low, high = 1 - config.clip_low, 1 + config.clip_high
    match config.recipe.surrogate:
        case "clip":
            surrogate = clipped(torch.exp(log_ratio), advantages, low, high)
        case "sequence_clip":
            surrogate = clipped(sequence_ratio(log_ratio, lengths), advantages, low, high)
        case "cispo":
            surrogate = clipped_weight(logprobs, torch.exp(log_ratio), advantages, low, high)
    loss = surrogate.loss
    kl = kl_k3(logprobs, ref_logprobs)
    if beta > 0:
        loss = loss + beta * surrogate.ratio * kl
    weight = torch.exp((old_logprobs - rollout_logprobs).detach())
    cap = config.importance_cap
    return TokenLoss(
        weight.clamp(max=cap) * loss,
        surrogate.ratio.detach(),
        surrogate.is_clipped,
        weight > cap,
        kl.detach(),
    )


def clipped(ratio: Tensor, advantages: Tensor, low: float, high: float) -> Surrogate:
    """Returns -min(ratio A, clip(ratio) A), (N,): nothing is gained by moving a ratio beyond the bounds.

    Source: Schulman et al. 2017, arXiv:1707.06347, equation 7; with two bounds DAPO, arXiv:2503.14476.
    """
    loss = -torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages)
    is_clipped = ((ratio < low) & (advantages < 0)) | ((ratio > high) & (advantages > 0))
    return Surrogate(loss, ratio, is_clipped)


def sequence_ratio(log_ratio: Tensor, lengths: Tensor) -> Tensor:
    """Returns one ratio for each completion, the geometric mean of its tokens', given to all of them.

    (N,), (B,) -> (N,).

    Source: GSPO, Zheng et al. 2025, arXiv:2507.18071, equation 7.
    """
    lengths = lengths.to(log_ratio.device)
    mean = torch.segment_reduce(log_ratio, "mean", lengths=lengths)
    return torch.exp(mean).repeat_interleave(lengths)


def clipped_weight(logprobs: Tensor, ratio: Tensor, advantages: Tensor, low: float, high: float) -> Surrogate:
    """Returns -clip(ratio) A logprob, (N,), with a constant factor: every token keeps a bounded gradient.

    Source: CISPO, MiniMax 2025, arXiv:2506.13585, equations 4 and 5.
    """
    loss = -ratio.detach().clamp(low, high) * advantages * logprobs
    return Surrogate(loss, ratio, (ratio < low) | (ratio > high))


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Returns half the squared error of each value, or of the value held near its old one if that is larger.

    All are (N,), in standard deviations of the step's rewards. A value that moved by more than `clip` towards
    its return has no gradient.

    Source: PPO as released in OpenAI's baselines; Engstrom et al. 2020, arXiv:2005.12729, section 3.
    """
    near = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (near - returns).square())
