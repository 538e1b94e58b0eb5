"""How much better a completion, or a token of it, is than a baseline. P prompts, G completions, T tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from methods import metrics as names
from methods.rewards import scale_of
from methods.train_config import TrainConfig
from workers.training.base.types import Group
from workers.training.model.value import explained_variance, gae
from workers.training.rewards import Rewards

STD_FLOOR = 0.25
"""The least divisor of a group's advantages, as a share of the pooled standard deviation of all groups. A
quarter was chosen, not measured. It cannot help where every group differs by noise alone: `LEAST_SPREAD`
(methods/rewards.py) does.
"""

NO_SPREAD = 1e-6
"""Numbers closer together than this share of the largest of them count as equal. Chosen, not measured: it
is above the rounding of fp32 (6e-8).
"""


class TokenTargets(NamedTuple):
    """Says what the tokens of each completion are updated with, (T,) for each completion.

    Attributes:
        advantages: what weighs each token in the loss.
        returns: what the value of the state before each token should be; None without a value head.
        measured: metrics.
    """

    advantages: list[Tensor]
    returns: list[Tensor] | None = None
    measured: Mapping[str, float] = MappingProxyType({})

    def teach_anything(self, beta: float) -> bool:
        """Says whether the loss has a gradient at all; `beta` is the weight of the KL term in it."""
        has_other_loss = self.returns is not None or beta > 0
        return has_other_loss or any(bool(row.any()) for row in self.advantages)


def group_advantages(rewards: Tensor, graded: Tensor, *, scale_by_std: bool) -> Tensor:
    """Compares each completion with the mean of its group (the GRPO baseline).

    Args:
        rewards: (P, G), grader units; any value where not graded.
        graded: (P, G) bool; ungraded completions stay out of the mean and get 0.
        scale_by_std: divide by the group's standard deviation, as in the paper. The divisor is at least
            `STD_FLOOR` of the pooled one, so that a group that differs by grader noise alone is not blown up
            to the size of one with real differences. Off: Dr. GRPO (Liu et al. 2025, arXiv:2503.20783).

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


def leave_one_out_advantages(rewards: Tensor, graded: Tensor) -> Tensor:
    """Compares each completion with the mean of the others of its group (the RLOO baseline).

    Args:
        rewards: (P, G), grader units; any value where not graded.
        graded: (P, G) bool; ungraded completions are no one's baseline and get 0.

    Returns:
        (P, G), grader units: n / (n - 1) times the distance to the mean of the n graded ones; 0 for a
        completion alone and for a group without spread.

    Source: Ahmadian et al. 2024, arXiv:2402.14740, section 3.
    """
    count = graded.sum(1, keepdim=True)
    rewards = torch.where(graded, rewards, 0).double()
    others = (rewards.sum(1, keepdim=True) - rewards) / (count - 1).clamp(min=1)
    is_compared = graded & groups_with_spread(rewards, graded)[:, None]
    return torch.where(is_compared, rewards - others, 0).float()


def returns_to_go(rewards: Tensor) -> Tensor:
    """Adds up each token's reward and all later ones, undiscounted: (T,) -> (T,)."""
    return rewards.flip(0).cumsum(0).flip(0)


def normalised(values: Tensor, *, scale: bool) -> Tensor:
    """Moves numbers of any shape to mean 0 and, with `scale`, divides them by their standard deviation.

    Returns zeros where they have no spread: rounding is not to be blown up.
    """
    values = values.double()
    centred = values - values.mean()
    if centred.abs().max() <= NO_SPREAD * values.abs().max():
        return torch.zeros_like(centred)
    if scale:
        centred = centred / centred.abs().max()  # tiny numbers must not underflow
        centred = centred / centred.std()
    return centred


def least_spread(config: TrainConfig, rewards: Rewards, largest: float = 0.0) -> float:
    """Returns the difference of two rewards, in grader units, up to which it is taken for noise.

    Where the grader's range is not known, that follows from the largest of these (P, G), and from how large
    earlier ones were.
    """
    found = rewards.values[rewards.graded].abs()
    own = float(found.max()) if len(found) else 0.0
    return scale_of(config.reward_range, max(largest, own)).least_spread


def groups_with_spread(rewards: Tensor, graded: Tensor, least: float = 0.0) -> Tensor:
    """Says which groups can teach anything: those with two graded completions whose rewards differ.

    (P, G) rewards in grader units and (P, G) bool -> (P,) bool. They have to differ by more than `least`, and
    by more than rounding.
    """
    highest = torch.where(graded, rewards, -torch.inf).amax(1)
    lowest = torch.where(graded, rewards, torch.inf).amin(1)
    size = torch.maximum(highest.abs(), lowest.abs())
    return (graded.sum(1) >= 2) & (highest - lowest > (NO_SPREAD * size).clamp(min=least))


def without_noise(rewards: Rewards, config: TrainConfig) -> Rewards:
    """Makes the rewards of each group without spread equal, so that nothing is learnt from what is noise."""
    values, graded = rewards
    lowest = torch.where(graded, values, torch.inf).amin(1, keepdim=True)
    has_spread = groups_with_spread(values, graded, least_spread(config, rewards))[:, None]
    return Rewards(torch.where(has_spread | ~graded, values, lowest), graded)


def compared_completions(rewards: Rewards, config: TrainConfig) -> Tensor:
    """Says which completions can be learnt from: graded, with something different to compare them with.

    `rewards` are the grader's own, (P, G): what is taken off for length or KL makes no difference where the
    grader saw none, except that leave-one-out with a KL in its rewards learns from that alone.

    Returns:
        (P, G) bool.
    """
    values, graded = rewards
    least = least_spread(config, rewards)
    if config.recipe.baseline in ("batch", "value"):
        # Their advantages are divided by the spread of the step. Without one in the rewards, the KL alone
        # would be blown up to the size of a reward.
        step_has_spread = groups_with_spread(values.reshape(1, -1), graded.reshape(1, -1), least)
        return graded & step_has_spread
    if config.has_kl_in_reward:
        return graded & (graded.sum(1, keepdim=True) >= 2)
    return graded & groups_with_spread(values, graded, least)[:, None]


def token_targets(
    rewards: Rewards,
    forwarded: Tensor,
    kl: Sequence[Tensor],
    values: Sequence[Tensor] | None,
    config: TrainConfig,
) -> TokenTargets:
    """Compares completions with the baseline of the run's algorithm.

    Args:
        rewards: (P, G) of the completions that are compared; its `graded` says which these are. Without any,
            all advantages are 0.
        forwarded: (P, G) bool, those whose tokens are wanted.
        kl: (T,) estimate k1, in nats, of each forwarded completion's tokens, one completion after the other.
        values: (T,) of each, by the value head before the step's first update; None without one.
    """
    if not rewards.graded.any():
        return TokenTargets([torch.zeros(len(row)) for row in kl])
    match config.recipe.baseline:
        case "group":
            found = group_advantages(rewards.values, rewards.graded, scale_by_std=config.scale_advantage)
            return TokenTargets(_spread_out(found[forwarded], kl))
        case "leave_one_out":
            penalised = rewards.values.double().clone()
            penalised[forwarded] -= config.beta * torch.stack([row.double().sum() for row in kl])
            found = leave_one_out_advantages(penalised, rewards.graded)
            if config.scale_advantage:
                found[rewards.graded] = normalised(found[rewards.graded], scale=True).float()
            return TokenTargets(_spread_out(found[forwarded], kl))
        case "batch":
            costs = _token_rewards(rewards.values[forwarded], kl, config.beta)
            returns = [returns_to_go(row) for row in costs]
            return TokenTargets(_normalised_together(returns, config))
        case "value":
            assert values is not None
            return _value_targets(rewards, forwarded, kl, values, config)


def _value_targets(
    rewards: Rewards, forwarded: Tensor, kl: Sequence[Tensor], values: Sequence[Tensor], config: TrainConfig
) -> TokenTargets:
    """Estimates advantages by GAE over rewards in standard deviations of the step.

    So values have one scale for every grader.
    """
    compared = rewards.values[rewards.graded].double()
    standard = torch.zeros_like(rewards.values, dtype=torch.float64)
    standard[rewards.graded] = normalised(compared, scale=True)
    token_rewards = _token_rewards(standard[forwarded], kl, config.beta / float(compared.std()))
    padded = pad_sequence([row.double() for row in values], batch_first=True)
    found = gae(pad_sequence(token_rewards, batch_first=True), padded, config.gae_lambda)
    lengths = [len(row) for row in values]
    advantages = [row[:n] for row, n in zip(found, lengths, strict=True)]
    returns = [row[:n].float() for row, n in zip(found + padded, lengths, strict=True)]
    to_go = gae(pad_sequence(token_rewards, batch_first=True), torch.zeros_like(padded), 1.0)
    to_go = torch.cat([row[:n] for row, n in zip(to_go, lengths, strict=True)])
    explained = explained_variance(to_go, torch.cat(list(values)))
    measured = {} if explained is None else {names.EXPLAINED_VARIANCE: explained}
    return TokenTargets(_normalised_together(advantages, config), returns, measured)


def _token_rewards(rewards: Tensor, kl: Sequence[Tensor], beta: float) -> list[Tensor]:
    """Charges each token its KL, and gives the last one the completion's reward.

    (B,) rewards and (T,) KL each -> (T,) each.
    """
    found = [-beta * row.double() for row in kl]
    for row, reward in zip(found, rewards.tolist(), strict=True):
        row[-1] += reward
    return found


def _normalised_together(rows: Sequence[Tensor], config: TrainConfig) -> list[Tensor]:
    """Moves all tokens of the step, (T,) for each completion, to mean 0 and standard deviation 1 together."""
    together = normalised(torch.cat(list(rows)), scale=config.scale_advantage).float()
    return list(torch.split(together, [len(row) for row in rows]))


def _spread_out(advantages: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Gives a completion's advantage to each of its tokens: (B,) -> (T,) each."""
    return [value.expand(len(row)) for value, row in zip(advantages, like, strict=True)]


def token_weights(
    groups: Sequence[Group], counted: Tensor, forwarded: Tensor, stands_for: Tensor, config: TrainConfig
) -> list[Tensor]:
    """Returns what each token counts in the step's loss: (T,) for each forwarded completion.

    "token": 1 / the tokens of all counted completions; "sequence": 1 / (own length * their number);
    "constant": 1 / (max_completion_tokens * their number); each times the number of completions that it
    stands for.

    Args:
        groups: P groups of G completions.
        counted: (P, G) bool. All graded ones, taught from or not, but for those left out on purpose.
        forwarded: (P, G) bool, those whose tokens are wanted.
        stands_for: (P, G), how many completions the gradient of each one of them stands for; 0 without one.
        config: names the aggregation.
    """
    lengths = torch.tensor([[c.n_sampled for c in group.completions] for group in groups])
    n_counted, n_tokens = int(counted.sum()), int(lengths[counted].sum())

    def weight(length: int) -> float:
        match config.aggregation:
            case "token":
                return 1 / n_tokens
            case "sequence":
                return 1 / (max(1, length) * n_counted)
            case "constant":
                return 1 / (config.max_completion_tokens * n_counted)

    chosen = zip(lengths[forwarded].tolist(), stands_for[forwarded].tolist(), strict=True)
    return [torch.full((n,), times * weight(n)) for n, times in chosen]
