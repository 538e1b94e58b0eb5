"""One step's update: graded groups in, changed weights out.

Which completions are run is found in learnable.py, what they are compared with in advantages.py, and the loss
of each token in losses.py; here they meet the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from methods import metrics as names
from methods.train_config import TrainConfig
from workers.training.advantages import TokenTargets, token_targets
from workers.training.base.distributed import ALONE, World
from workers.training.base.divergences import kl_k1
from workers.training.base.types import Group, Prompt
from workers.training.learnable import LearnableGroups, find_learnable
from workers.training.losses import policy_loss, value_loss
from workers.training.model.policy import VALUE_HEAD, Policy
from workers.training.model.sharding import clip_gradients
from workers.training.passes.forward import (
    completion_states,
    output_head,
    per_completion,
    token_logprobs,
)
from workers.training.passes.micro_batches import (
    Before,
    Known,
    MicroBatch,
    beginning,
    cut,
    cut_anew,
    empty_micro_batch,
    fillers,
)
from workers.training.passes.packing import Batch, PackedCompletion
from workers.training.rewards import Rewards
from workers.training.update_metrics import UpdateMetrics, add_totals


@dataclass
class UpdateStats:
    """Says what an update did. Without groups to learn from nothing is computed and `values` stays empty."""

    values: dict[str, float] = field(default_factory=dict)
    trained_tokens: int = 0
    is_finite: bool = True


VALUE_EPSILON = 1e-6
"""Adam's epsilon for a value head: what is left of a gradient that is 0 but for rounding makes no step.
Chosen below the 1e-5 of PPO's baselines (Huang et al. 2022, The 37 implementation details of PPO), since here
gradients are divided by the width of the states.
"""


def make_optimizer(policy: Policy, config: TrainConfig) -> torch.optim.AdamW:
    """Returns AdamW without decay: the KL penalty holds the policy near its start.

    A value head has its own rate.
    """
    of_policy, of_head = _split_weights(policy)
    param_groups = [{"params": of_policy, "lr": config.learning_rate, "peak_lr": config.learning_rate}]
    if of_head:
        rate = config.value_learning_rate
        param_groups.append({"params": of_head, "lr": rate, "peak_lr": rate, "eps": VALUE_EPSILON})
    optimizer = torch.optim.AdamW(param_groups, weight_decay=0.0, fused=True)
    optimizer.register_step_post_hook(lambda *_: policy.weights_changed())
    return optimizer


def warm_up(config: TrainConfig, step: int) -> float:
    """Returns the share of its peak that a rate has: linear from 0, then constant 1.

    Step 1 is the first update.
    """
    return min(1.0, step / (config.warmup_steps + 1))


def update_policy(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    groups: Sequence[Group],
    rewards: Rewards,
    config: TrainConfig,
    step: int,
    world: World = ALONE,
    lr_scale: float = 1.0,
) -> UpdateStats:
    """Makes `config.updates_per_step` updates with these groups, or none if nothing can be learnt from them.

    Every process is given all groups and computes its share; gradients are added up, so that the update does
    not depend on how many there are. Weights are left alone when loss or gradient is not finite. The sampling
    copy, which may be in use at this moment, follows when `policy.sync_rollout` is called. `lr_scale`
    multiplies the learning rates.
    """
    learnable = find_learnable(groups, rewards, config)
    if learnable is None or (learnable.is_kl_alone and not optimizer.state):
        return UpdateStats()  # a policy that was never updated is the reference: its KL would be rounding
    completions, mine = _share_of(learnable, world)
    known, empty = policy.passes.attempt(
        lambda: _run_before(policy, completions, learnable.completions[0].prompt, config, world)
    )
    batches, before = [one.batch for one in known], [one.before for one in known]
    targets = _targets(learnable, batches, mine, before, config, world)
    if not targets.teach_anything(learnable.beta):
        return UpdateStats()
    micro_batches = _make_micro_batches(learnable, batches, mine, before, targets, policy.device)
    passes = _Passes(policy, completions, micro_batches, [empty_micro_batch(one) for one in empty])
    forwarded = sum(world.gather(sum(batch.n_forwarded for batch in batches)))
    stats = UpdateStats({**learnable.measured, **targets.measured}, forwarded * config.updates_per_step)
    warm = warm_up(config, step) * lr_scale
    for param_group in optimizer.param_groups:
        param_group["lr"] = warm * param_group["peak_lr"]
    stats.values |= {names.LEARNING_RATE: warm * config.learning_rate, names.BETA: config.beta}
    of_policy, of_head = _split_weights(policy)
    for update in range(config.updates_per_step):
        metrics = policy.passes.attempt(lambda: passes.gradient(optimizer, config, learnable.beta))
        world.sum_gradients(policy.trained().values())
        totals = add_totals(world.gather(metrics.read()))
        norm = clip_gradients(of_policy, config.max_grad_norm)
        head_norm = clip_gradients(of_head, config.max_grad_norm)
        stats.is_finite = all(map(math.isfinite, (norm, head_norm, totals.loss)))
        if not stats.is_finite:
            break
        optimizer.step()
        stats.values |= totals.metrics(config, is_first=update == 0) | {names.GRAD_NORM: norm}
    optimizer.zero_grad(set_to_none=True)
    return stats


class _Passes:
    """Holds the passes of a step's updates, in the sizes that fit the device."""

    def __init__(
        self,
        policy: Policy,
        completions: Sequence[PackedCompletion],
        micro_batches: Sequence[MicroBatch],
        empty: Sequence[MicroBatch],
    ) -> None:
        self._policy = policy
        self._completions = completions
        self._micro_batches = micro_batches
        self._empty = empty
        self._most = policy.passes.most

    def gradient(self, optimizer: torch.optim.Optimizer, config: TrainConfig, beta: float) -> UpdateMetrics:
        """Computes the gradient of all passes, from none. An attempt that fails leaves only gradients."""
        optimizer.zero_grad(set_to_none=True)
        passes = self._policy.passes
        if passes.most < self._most:
            self._micro_batches = cut_anew(self._policy, self._completions, self._micro_batches)
            self._most = passes.most
        metrics, made = UpdateMetrics(), list(beginning(self._micro_batches))
        for micro_batch in made:
            passes.begin(micro_batch.batch.n_forwarded, len(micro_batch.batch.indices))
            _forward_backward(self._policy, micro_batch, config, beta, metrics)
        for micro_batch in self._empty:
            _forward_backward(self._policy, micro_batch, config, beta, UpdateMetrics())
        self._micro_batches = made
        return metrics


def _share_of(learnable: LearnableGroups, world: World) -> tuple[list[PackedCompletion], list[int]]:
    """Returns this process's share of the completions, and which of all completions they are."""
    mine = world.share(
        [len(packed.completion.tokens) for packed in learnable.completions],
        [packed.prompt.row for packed in learnable.completions],
        {packed.prompt.row: len(packed.prompt.tokens) for packed in learnable.completions},
    )
    return [learnable.completions[i] for i in mine], mine


def _run_before(
    policy: Policy, completions: Sequence[PackedCompletion], filler: Prompt, config: TrainConfig, world: World
) -> tuple[list[Known], list[Known]]:
    """Returns the passes of these completions and, of a sharded policy, those that fill up, as known."""
    batches = cut(policy, completions)
    found = []
    for batch in [*batches, *fillers(policy, filler, len(batches), world)]:
        policy.passes.begin(batch.n_forwarded, len(batch.indices))
        found.append(Known(batch, _before_update(policy, batch, config)))
    return found[: len(batches)], found[len(batches) :]


def reference_logprobs(policy: Policy, batch: Batch, temperature: float) -> Tensor:
    """Returns the log-probability of each completion token under the starting policy, (N,), nats."""
    with policy.reference() as model:
        states = completion_states(model, batch)
        return token_logprobs(states, output_head(model), batch.targets, temperature, batch.allowed)[0]


def _before_update(policy: Policy, batch: Batch, config: TrainConfig) -> Before:
    """Runs the reference, and the policy itself where rewards need its KL or its values.

    That KL is not made of the sampler's logprobs: they may be another policy's, and are rounded otherwise
    than the reference's, so that a policy that has not moved would seem to have.
    """
    ref_logprobs = reference_logprobs(policy, batch, config.temperature)
    if not config.has_kl_in_reward and policy.value_head is None:
        return Before(ref_logprobs, None, None)
    with torch.no_grad():
        states = completion_states(policy.model, batch)
        head = output_head(policy.model)
        logprobs, _ = token_logprobs(states, head, batch.targets, config.temperature, batch.allowed)
        values = None if policy.value_head is None else policy.value_head(states)
        return Before(ref_logprobs, logprobs, values)


def _targets(
    learnable: LearnableGroups,
    batches: Sequence[Batch],
    mine: Sequence[int],
    before: Sequence[Before],
    config: TrainConfig,
    world: World,
) -> TokenTargets:
    """Compares all completions of all processes, alike in every process."""

    def of_all_completions(found: Sequence[Tensor]) -> list[Tensor]:
        by_completion: dict[int, Tensor] = {}
        for batch, values in zip(batches, found, strict=True):
            pieces = per_completion(values.cpu(), batch)
            by_completion |= {mine[i]: piece for i, piece in zip(batch.indices, pieces, strict=True)}
        gathered = {i: piece for theirs in world.gather(by_completion) for i, piece in theirs.items()}
        return [gathered[i] for i in range(len(learnable.completions))]

    kl = [torch.zeros(packed.completion.n_sampled) for packed in learnable.completions]
    if config.has_kl_in_reward:
        kl = of_all_completions(
            [kl_k1(known.logprobs, known.ref_logprobs) for known in before if known.logprobs is not None]
        )
    values = None
    if config.recipe.baseline == "value":
        values = of_all_completions([known.values for known in before if known.values is not None])
    return token_targets(learnable.rewards, learnable.forwarded, kl, values, config)


def _make_micro_batches(
    learnable: LearnableGroups,
    batches: Sequence[Batch],
    mine: Sequence[int],
    before: Sequence[Before],
    targets: TokenTargets,
    device: torch.device,
) -> list[MicroBatch]:
    rollout = [torch.tensor(packed.completion.sampled_logprobs) for packed in learnable.completions]

    def flat(values: Sequence[Tensor], batch: Batch) -> Tensor:
        return torch.cat([values[mine[i]] for i in batch.indices]).to(device)

    return [
        MicroBatch(
            batch,
            flat(rollout, batch),
            known.ref_logprobs,
            flat(targets.advantages, batch),
            flat(learnable.weights, batch),
            known.logprobs,
            known.values,
            None if targets.returns is None else flat(targets.returns, batch),
        )
        for batch, known in zip(batches, before, strict=True)
    ]


def _forward_backward(
    policy: Policy, micro_batch: MicroBatch, config: TrainConfig, beta: float, metrics: UpdateMetrics
) -> None:
    """Adds the gradient of one forward pass."""
    batch = micro_batch.batch
    states = completion_states(policy.model, batch)
    head = output_head(policy.model)
    logprobs, entropy = token_logprobs(states, head, batch.targets, config.temperature, batch.allowed)
    if micro_batch.old_logprobs is None:
        micro_batch.old_logprobs = logprobs.detach()
    tokens = policy_loss(
        logprobs,
        micro_batch.old_logprobs,
        micro_batch.rollout_logprobs,
        micro_batch.ref_logprobs,
        micro_batch.advantages,
        batch.lengths,
        config,
        beta,
    )
    loss = (tokens.loss * micro_batch.weights).sum()
    of_values = _value_loss(policy, micro_batch, states, config)
    total = loss if of_values is None else loss + of_values
    total.backward()  # type: ignore[no-untyped-call]
    metrics.add(loss, of_values, tokens, entropy, (logprobs - micro_batch.rollout_logprobs).abs())


def _value_loss(
    policy: Policy, micro_batch: MicroBatch, states: Tensor, config: TrainConfig
) -> Tensor | None:
    if policy.value_head is None or micro_batch.old_values is None or micro_batch.returns is None:
        return None
    values = policy.value_head(states)
    return (
        value_loss(values, micro_batch.old_values, micro_batch.returns, config.value_clip)
        * micro_batch.weights
    ).sum()


def _split_weights(policy: Policy) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Returns the trained weights of the policy, and those of its value head."""
    weights = policy.trained().items()
    of_head = [weight for name, weight in weights if name.startswith(VALUE_HEAD)]
    return [weight for name, weight in weights if not name.startswith(VALUE_HEAD)], of_head
