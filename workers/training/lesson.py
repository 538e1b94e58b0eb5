"""What an update is about: which completions it runs, and what is known of them before the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from methods.train_config import TrainConfig
from workers.training.advantages import compared_completions, token_weights
from workers.training.base.types import Group
from workers.training.passes.forward import Answer
from workers.training.rewards import Rewards
from workers.training.shaping import punishments, truncated_completions


class Lesson(NamedTuple):
    """P groups of G completions, B of which are run; each has T tokens.

    Attributes:
        answers: (B,) the completions that are run.
        forwarded: (P, G) bool, which ones they are.
        rewards: after what is taken off for length; `graded` says which completions are compared.
        weights: (T,) for each answer, what its tokens count in the loss.
        measured: metrics.
    """

    answers: list[Answer]
    forwarded: Tensor
    rewards: Rewards
    weights: list[Tensor]
    measured: dict[str, float]


def find_lesson(groups: Sequence[Group], rewards: Rewards, config: TrainConfig) -> Lesson | None:
    """Choose what to learn from; None if nothing can be learnt from these groups.

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
        measured["reward/overlong_penalty"] = float(punished[rewards.graded].mean())
    return Lesson(
        [Answer(groups[i].prompt, groups[i].completions[j]) for i, j in forwarded.nonzero().tolist()],
        forwarded,
        Rewards(rewards.values - punished, compared),
        token_weights(groups, rewards.graded & ~masked, forwarded, trained, config),
        measured,
    )
