"""The passes of an update: what each holds beside its tokens, and how they are cut into smaller ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from workers.training.base.distributed import World
from workers.training.base.types import Completion, Prompt
from workers.training.model.grammar import Grammar
from workers.training.model.policy import Policy
from workers.training.passes.forward import batches_for, per_completion
from workers.training.passes.packing import Batch, PackedCompletion, make_batches


class Before(NamedTuple):
    """Holds what is known of a forward pass before the step's first update, (N,) each."""

    ref_logprobs: Tensor
    logprobs: Tensor | None
    """By the policy; None where the first update may find it out by itself."""
    values: Tensor | None
    """By the value head, where there is one."""


class Known(NamedTuple):
    """Holds one pass, and what is known of it before the step's first update."""

    batch: Batch
    before: Before


@dataclass
class MicroBatch:
    """Holds one forward pass and the constants of its loss, each (N,)."""

    batch: Batch
    rollout_logprobs: Tensor
    ref_logprobs: Tensor
    advantages: Tensor
    weights: Tensor
    old_logprobs: Tensor | None
    """By the policy before the step's first update, which fills it in."""
    old_values: Tensor | None
    returns: Tensor | None


NAMES = (
    "rollout_logprobs",
    "ref_logprobs",
    "advantages",
    "weights",
    "old_logprobs",
    "old_values",
    "returns",
)
"""The tensors of a `MicroBatch`."""


def cut(policy: Policy, completions: Sequence[PackedCompletion]) -> list[Batch]:
    """Cuts completions into passes of at most so many tokens as the policy's passes may have."""
    batches = batches_for(policy.model, completions, policy.passes.most, policy.device)
    if policy.grammar is None:
        return batches
    return [_constrained(batch, completions, policy.grammar, policy.device) for batch in batches]


def cut_anew(
    policy: Policy, completions: Sequence[PackedCompletion], micro_batches: Sequence[MicroBatch]
) -> list[MicroBatch]:
    """Cuts the passes of an update into smaller ones, with the constants that they have, bit for bit."""
    pieces: dict[str, dict[int, Tensor]] = {name: {} for name in NAMES}
    for made in micro_batches:
        for name in NAMES:
            if (values := getattr(made, name)) is not None:
                of_completions = per_completion(values, made.batch)
                pieces[name] |= dict(zip(made.batch.indices, of_completions, strict=True))

    def joined(name: str, batch: Batch) -> Tensor | None:
        return torch.cat([pieces[name][i] for i in batch.indices]) if pieces[name] else None

    found = []
    for batch in cut(policy, completions):
        tensors: dict[str, Any] = {name: joined(name, batch) for name in NAMES}
        found.append(MicroBatch(batch, **tensors))
    return found


def beginning(micro_batches: Sequence[MicroBatch]) -> Iterator[MicroBatch]:
    """Yields copies of passes that a failed attempt may fill in without a trace in these."""
    for made in micro_batches:
        yield replace(made)


def empty_micro_batch(known: Known) -> MicroBatch:
    """Returns a pass that only keeps other processes from waiting: its tokens weigh nothing."""
    batch, before = known
    none = torch.zeros_like(before.ref_logprobs)
    values = None if before.values is None else none
    return MicroBatch(batch, none, before.ref_logprobs, none, none, before.logprobs, values, values)


def fillers(policy: Policy, prompt: Prompt, made: int, world: World) -> list[Batch]:
    """Returns passes beside the `made` ones of this process, so that all processes make the same number.

    It is collective where the policy is sharded, so it is called before the first of the passes, which are
    too; else there are none. Their results are to be left alone, their gradients multiplied by 0.
    """
    missing = world.most(made) - made if policy.is_sharded else 0
    packed = PackedCompletion(prompt, Completion((policy.end_ids[0],), (0.0,), text="", finish_reason="stop"))
    return make_batches([packed], 1, policy.device) * missing


def _constrained(
    batch: Batch, completions: Sequence[PackedCompletion], grammar: Grammar, device: torch.device
) -> Batch:
    chosen = [completions[i].completion for i in batch.indices]
    prompts = [completions[i].prompt for i in batch.indices]
    return replace(batch, allowed=grammar.allowed(chosen, device, prompts))
