"""One step's update: graded groups in, changed weights out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from workers.config import TrainConfig
from workers.training.advantages import groups_with_spread
from workers.training.forward import Answer, Batch, completion_states, make_batches, token_logprobs
from workers.training.losses import grpo_loss
from workers.training.policy import Policy
from workers.training.rewards import Rewards
from workers.training.types import Group


@dataclass
class UpdateStats:
    """What an update did. Without groups to learn from nothing is computed and `values` stays empty."""

    values: dict[str, float] = field(default_factory=dict)
    trained_tokens: int = 0
    is_finite: bool = True


def make_optimizer(policy: Policy, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW without decay: the KL penalty holds the policy near its start."""
    return torch.optim.AdamW(policy.trained().values(), lr=config.learning_rate, weight_decay=0.0)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up from 0, then constant. Step 1 is the first update."""
    return config.learning_rate * min(1.0, step / (config.warmup_steps + 1))


def update_policy(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    groups: Sequence[Group],
    rewards: Rewards,
    advantages: Tensor,
    config: TrainConfig,
    step: int,
) -> UpdateStats:
    """Make `config.updates_per_step` updates with these groups, or none if no group has spread.

    The loss is the mean over the tokens of all graded completions; those of groups without spread add
    nothing but their number. Weights are left alone when loss or gradient is not finite.
    """
    answers = answers_to_train(groups, rewards, advantages)
    if not answers:
        return UpdateStats()
    graded_tokens = sum(
        len(completion.tokens)
        for group, row in zip(groups, rewards.graded.tolist(), strict=True)
        for completion, graded in zip(group.completions, row, strict=True)
        if graded
    )
    batches = make_batches(answers, config.micro_batch_tokens, policy.device)
    ref_logprobs = [reference_logprobs(policy, batch, config.temperature) for batch in batches]
    stats = UpdateStats(trained_tokens=sum(_tokens_in(batch) for batch in batches) * config.updates_per_step)
    rate = learning_rate(config, step)
    for param_group in optimizer.param_groups:
        param_group["lr"] = rate
    for update in range(config.updates_per_step):
        tally = _Tally()
        optimizer.zero_grad(set_to_none=True)
        for batch, ref in zip(batches, ref_logprobs, strict=True):
            _forward_backward(policy, batch, ref, graded_tokens, config, tally)
        norm = float(torch.nn.utils.clip_grad_norm_(policy.trained().values(), config.max_grad_norm))
        stats.is_finite = math.isfinite(norm) and math.isfinite(tally.loss)
        if not stats.is_finite:
            break
        optimizer.step()
        stats.values |= tally.metrics(is_first=update == 0)
        stats.values |= {"optim/lr": rate, "optim/grad_norm": norm, "optim/loss": tally.loss}
    optimizer.zero_grad(set_to_none=True)
    policy.sync_rollout()
    return stats


def answers_to_train(groups: Sequence[Group], rewards: Rewards, advantages: Tensor) -> list[Answer]:
    """The graded completions of groups with spread; the others have no gradient."""
    trained = groups_with_spread(rewards.values, rewards.graded)[:, None] & rewards.graded
    return [
        Answer(groups[i].prompt, groups[i].completions[j], float(advantages[i, j]))
        for i, j in trained.nonzero().tolist()
    ]


def reference_logprobs(policy: Policy, batch: Batch, temperature: float) -> Tensor:
    """Log-probability of each completion token under the starting policy, (N,)."""
    with policy.reference() as model:
        states = completion_states(model, batch)
        return token_logprobs(states, model.get_output_embeddings(), batch.targets, temperature)[0]


def _forward_backward(
    policy: Policy, batch: Batch, ref_logprobs: Tensor, n_tokens: int, config: TrainConfig, tally: _Tally
) -> None:
    states = completion_states(policy.model, batch)
    head = policy.model.get_output_embeddings()
    logprobs, entropy = token_logprobs(states, head, batch.targets, config.temperature)
    tokens = grpo_loss(
        logprobs,
        batch.rollout_logprobs,
        ref_logprobs,
        batch.advantages,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        beta=config.beta,
    )
    loss = tokens.loss.sum() / n_tokens
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        gap = (logprobs - batch.rollout_logprobs).abs()
        clipped_low = tokens.is_clipped & (tokens.ratio < 1)
        sums = [tokens.kl, entropy, tokens.ratio, tokens.is_clipped, clipped_low, gap]
        tally.add(float(loss), batch.n_tokens, [float(values.sum()) for values in sums])
        tally.highest_ratio = max(tally.highest_ratio, float(tokens.ratio.max()))
        tally.lowest_ratio = min(tally.lowest_ratio, float(tokens.ratio.min()))
        tally.largest_gap = max(tally.largest_gap, float(gap.max()))


@dataclass
class _Tally:
    """Sums over the tokens of one update."""

    loss: float = 0.0
    n_tokens: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 6)
    highest_ratio: float = -math.inf
    lowest_ratio: float = math.inf
    largest_gap: float = 0.0

    def add(self, loss: float, n_tokens: int, sums: list[float]) -> None:
        self.loss += loss
        self.n_tokens += n_tokens
        self.sums = [mine + new for mine, new in zip(self.sums, sums, strict=True)]

    def metrics(self, *, is_first: bool) -> dict[str, float]:
        kl, entropy, ratio, clipped, clipped_low, gap = (total / self.n_tokens for total in self.sums)
        values = {
            "ratio/mean": ratio,
            "ratio/max": self.highest_ratio,
            "ratio/min": self.lowest_ratio,
            "ratio/clipped_share": clipped,
            "ratio/clipped_low_share": clipped_low,
        }
        if is_first:  # later updates are no longer by the policy that sampled
            values |= {
                "kl/reference": kl,
                "entropy/mean": entropy,
                "sampler/mismatch": gap,
                "sampler/mismatch_max": self.largest_gap,
            }
        return values


def _tokens_in(batch: Batch) -> int:
    return batch.n_tokens + int(batch.prompt_lengths.sum())
