"""What an update is about: which completions it runs, and what is known of them before the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from methods import metrics as names
from methods.train_config import TrainConfig
from workers.training.advantages import compared_completions, token_weights, without_noise
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
        beta: weight of the KL term in the loss; 0 where there is none.
        is_kl_alone: nothing is compared, and the KL term is all there is to learn from.
        measured: metrics.
    """

    completions: list[PackedCompletion]
    forwarded: Tensor
    rewards: Rewards
    weights: list[Tensor]
    beta: float
    is_kl_alone: bool
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
    masked = (truncated_completions(groups) & config.mask_truncated) | without_sampled_tokens(groups)
    trained = compared & ~masked
    counted = rewards.graded & ~masked
    held = held_completions(counted, trained, config)
    if not (trained | held).any():
        return None
    # Where rewards that are others' baseline have a KL in them, masked completions are run for theirs.
    forwarded = compared if config.recipe.baseline == "leave_one_out" and config.has_kl_in_reward else trained
    forwarded = forwarded | held
    stands_for = torch.where(held, counted.sum(1, keepdim=True), trained.long())
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
        Rewards(without_noise(rewards, config).values - punished, compared),
        token_weights(groups, counted, forwarded, stands_for, config),
        config.beta if config.recipe.kl == "loss" or held.any() else 0.0,
        not bool(trained.any()),
        measured,
    )


def held_completions(counted: Tensor, trained: Tensor, config: TrainConfig) -> Tensor:
    """Says which completions enter the KL term of the loss alone: one of each group that has none trained.

    Groups without spread so go on being held near the reference, at the cost of one completion each. It is
    the first, which is as random as any other. Where rewards have the KL in them, that acts by itself, and
    only a step in which nothing is compared is held so.

    Args:
        counted: (P, G) bool, all that the loss is a mean over.
        trained: (P, G) bool, those of them with an advantage.
        config: names the algorithm and the weight of its KL.

    Returns:
        (P, G) bool.
    """
    is_left_to_rewards = config.recipe.kl == "reward" and (
        config.recipe.baseline == "leave_one_out" or bool(trained.any())
    )
    if config.beta == 0 or is_left_to_rewards:
        return torch.zeros_like(counted)
    is_first = counted & (counted.cumsum(1) == 1)
    return is_first & ~trained.any(1, keepdim=True)


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
    lengths = torch.tensor([[c.n_sampled for c in group.completions] for group in groups])
    limit = config.max_completion_tokens
    return overlong_punishment(lengths, limit, config.overlong_buffer * limit, config.overlong_penalty)


def truncated_completions(groups: Sequence[Group]) -> Tensor:
    """Says which completions were cut before they ended, (P, G) bool."""
    return torch.tensor([[c.finish_reason == "length" for c in group.completions] for group in groups])


def without_sampled_tokens(groups: Sequence[Group]) -> Tensor:
    """Says in which completions the policy chose no token, so that there is nothing to learn, (P, G) bool."""
    return torch.tensor([[c.n_sampled == 0 for c in group.completions] for group in groups])
