"""How much better a completion is than the others of its prompt. Shapes: P prompts, G completions."""

from __future__ import annotations

import torch
from torch import Tensor

STD_FLOOR = 0.25
"""Least divisor of a group's advantages, as a share of the pooled standard deviation of all groups."""

NO_SPREAD = 1e-6
"""Rewards of a group closer together than this share of the largest of them count as equal."""


def group_advantages(rewards: Tensor, graded: Tensor, *, scale_by_std: bool) -> Tensor:
    """Compare each completion with the mean of its group (the GRPO baseline).

    Args:
        rewards: (P, G), grader units; any value where not graded.
        graded: (P, G) bool; ungraded completions stay out of the mean and get 0.
        scale_by_std: divide by the group's standard deviation, as in the paper. The divisor is at least
            `STD_FLOOR` of the pooled one, so that a group that differs by grader noise alone is not blown
            up to the size of one with real differences. Off: Dr. GRPO (Liu et al. 2025, arXiv:2503.20783).

    Returns:
        (P, G); each row sums to 0 over its graded completions, and is 0 for a group without spread.

    Source: Shao et al. 2024, arXiv:2402.03300, section 4.1.2. The standard deviation is the unbiased one.
    """
    rewards = torch.where(graded, rewards, 0).double()
    count = graded.sum(1, keepdim=True)
    mean = rewards.sum(1, keepdim=True) / count.clamp(min=1)
    has_spread = groups_with_spread(rewards, graded)[:, None]
    centred = torch.where(graded & has_spread, rewards - mean, 0)
    if scale_by_std:
        centred = centred / centred.abs().max().clamp(min=1e-300)  # tiny rewards must not underflow
        variance = centred.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)
        pooled = (variance.sum() / has_spread.sum().clamp(min=1)).sqrt()
        divisor = torch.maximum(variance.sqrt(), STD_FLOOR * pooled)
        centred = torch.where(has_spread, centred / divisor, 0)
    return centred.float()


def groups_with_spread(rewards: Tensor, graded: Tensor) -> Tensor:
    """Which groups can teach anything: at least two graded completions with different rewards. (P,) bool."""
    highest = torch.where(graded, rewards, -torch.inf).amax(1)
    lowest = torch.where(graded, rewards, torch.inf).amin(1)
    size = torch.maximum(highest.abs(), lowest.abs())
    return (graded.sum(1) >= 2) & (highest - lowest > NO_SPREAD * size)
