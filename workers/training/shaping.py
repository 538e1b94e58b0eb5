"""What is taken off a grader's reward before completions are compared. Shapes: P prompts, G completions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from methods.train_config import TrainConfig
from workers.training.base.types import Group


def overlong_punishment(lengths: Tensor, limit: int, buffer: float, penalty: float) -> Tensor:
    """What long completions lose: nothing up to the buffer, then linearly more, `penalty` at the limit.

    Args:
        lengths: any shape, tokens.
        limit: most tokens of a completion.
        buffer: tokens before the limit in which the punishment grows; 0 punishes nothing.
        penalty: grader units.

    Returns:
        The shape of `lengths`, at least 0, double.

    Source: DAPO, Yu et al. 2025, arXiv:2503.14476, equation 13 (a reward there, with penalty 1).
    """
    if buffer == 0:
        return torch.zeros(lengths.shape, dtype=torch.float64)
    return penalty * ((lengths.double() - (limit - buffer)) / buffer).clamp(0, 1)


def punishments(groups: Sequence[Group], config: TrainConfig) -> Tensor:
    """What each completion loses by the run's settings, (P, G) in grader units."""
    lengths = torch.tensor([[len(c.tokens) for c in group.completions] for group in groups])
    limit = config.max_completion_tokens
    return overlong_punishment(lengths, limit, config.overlong_buffer * limit, config.overlong_penalty)


def truncated_completions(groups: Sequence[Group]) -> Tensor:
    """Which completions were cut before they ended, (P, G) bool."""
    return torch.tensor([[c.finish_reason == "length" for c in group.completions] for group in groups])
