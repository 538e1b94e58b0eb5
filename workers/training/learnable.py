"""What an update is about: which completions it runs, and what is known of them before the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from methods import metrics as names
from methods.train_config import TrainConfig
from workers.training.advantages import compared_completions, token_weights
from workers.training.base.types import Group
from workers.training.passes.forward import PackedCompletion
from workers.training.rewards import Rewards


class LearnableGroups(NamedTuple):
    """Holds what can be learnt from P groups of G completions, B of which are run; each has T tokens.

    Attributes:
        completions: (B,) the completions that are run.
        forwarded: (P, G) bool, which ones they are.
        rewards: (P, G), grader units, after what is taken off for length; `graded` says which are compared.
        weights: (T,) for each completion, what its tokens count in the loss.
        measured: metrics.
    """

    completions: list[PackedCompletion]
    forwarded: Tensor
    rewards: Rewards
    weights: list[Tensor]
    measured: dict[str, float]


def find_learnable(groups: Sequence[Group], rewards: Rewards, config: TrainConfig) -> LearnableGroups | None:
    """Chooses what to learn from; returns None if nothing can be learnt from these groups.

    With `mask_truncated` a completion that was cut leaves the gradient, and the number of tokens or
    completions that the loss is divided by. It stays in the baseline of its group (as in TRL): its reward is
    known.
    """
    if not groups:  # dynamic sampling found none with spread
        return None
    compared = compared_completions(rewards, config)
    masked = truncated_completions(groups) & config.mask_truncated
    trained = compared & ~masked
    if not trained.any():
        return None
    # Where rewards that are others' baseline have a KL in them, masked completions are run for theirs.
    forwarded = compared if config.recipe.baseline == "leave_one_out" and config.has_kl_in_reward else trained
    punished = punishments(groups, config)
    measured = {}
    if config.overlong_buffer > 0:
        measured[names.OVERLONG_PENALTY] = float(punished[rewards.graded].mean())
    return LearnableGroups(
        [
            PackedCompletion(groups[i].prompt, groups[i].completions[j])
            for i, j in forwarded.nonzero().tolist()
        ],
        forwarded,
        Rewards(rewards.values - punished, compared),
        token_weights(groups, rewards.graded & ~masked, forwarded, trained, config),
        measured,
    )


def overlong_punishment(lengths: Tensor, limit: int, buffer: float, penalty: float) -> Tensor:
    """Returns what long completions lose: nothing up to the buffer, then linearly up to `penalty`.

    Args:
        lengths: any shape, tokens.
        limit: most tokens of a completion.
        buffer: tokens before the limit in which the punishment grows; 0 punishes nothing.
        penalty: grader units, lost at the limit.

    Returns:
        The shape of `lengths`, grader units, at least 0, double.

    Source: DAPO, Yu et al. 2025, arXiv:2503.14476, equation 13 (a reward there, with penalty 1).
    """
    if buffer == 0:
        return torch.zeros(lengths.shape, dtype=torch.float64)
    return penalty * ((lengths.double() - (limit - buffer)) / buffer).clamp(0, 1)


def punishments(groups: Sequence[Group], config: TrainConfig) -> Tensor:
    """Returns what each completion loses by the run's settings, (P, G) in grader units."""
    lengths = torch.tensor([[len(c.tokens) for c in group.completions] for group in groups])
    limit = config.max_completion_tokens
    return overlong_punishment(lengths, limit, config.overlong_buffer * limit, config.overlong_penalty)


def truncated_completions(groups: Sequence[Group]) -> Tensor:
    """Says which completions were cut before they ended, (P, G) bool."""
    return torch.tensor([[c.finish_reason == "length" for c in group.completions] for group in groups])
