"""The value head of PPO: what return the policy's own states promise. N tokens, B completions, T tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from methods.train_config import TrainConfig


class ValueHead(nn.Module):
    """Maps the policy's final states linearly to a value for each; 0 everywhere at first.

    It reads the states without a gradient: the policy's weights learn from its reward alone. What else was
    tried is in docs/algorithms/ppo.md. States are normalised and the sum is divided by their width, so that
    one rate fits models of every width: an update of rate r moves a value by about r at most.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1, device=device, dtype=torch.float32)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, states: Tensor) -> Tensor:
        """Computes (N, H) states of any dtype -> (N,) fp32 values.

        Values are in standard deviations of the step's rewards.
        """
        width = states.shape[-1]
        normal = nn.functional.layer_norm(states.detach().float(), (width,))
        weight, bias = self.linear.weight, self.linear.bias
        return nn.functional.linear(normal / width, weight, bias)[:, 0]


def make_value_head(model: Any, device: torch.device, config: TrainConfig) -> ValueHead | None:
    """Returns a fresh head for the states of a causal model, if the run's algorithm compares with values."""
    if config.recipe.baseline != "value":
        return None
    return ValueHead(model.config.get_text_config().hidden_size, device)


def gae(rewards: Tensor, values: Tensor, decay: float) -> Tensor:
    """Estimates advantages without discount: the decayed sum of what comes better than expected.

    Args:
        rewards: (B, T) for each token, padded with 0 on the right.
        values: (B, T) of the state before each token, padded with 0: a completion's end has the value 0.
        decay: lambda. 1: return minus value; 0: one step ahead only.

    Returns:
        (B, T), in the unit of the rewards; 0 at padding.

    Source: generalised advantage estimation, Schulman et al. 2016, arXiv:1506.02438, equation 16 with gamma
    1.
    """
    after = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
    surprise = rewards + after - values
    found = torch.zeros_like(surprise)
    running = torch.zeros_like(surprise[:, 0])
    for t in reversed(range(surprise.shape[1])):
        running = surprise[:, t] + decay * running
        found[:, t] = running
    return found


def explained_variance(returns: Tensor, values: Tensor) -> float | None:
    """Returns the share of the variance of returns, (N,), that values, (N,), account for.

    1 is all, 0 none, below 0 worse than their mean. It is None where returns have no variance.
    """
    variance = float(returns.double().var(correction=0))
    if variance == 0:
        return None
    return 1 - float((returns.double() - values.double()).var(correction=0)) / variance
