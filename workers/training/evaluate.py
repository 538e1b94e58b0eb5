"""Measurements of a policy: its reward on the rows that it is judged by, and its exact KL to the base."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from graders import Grade
from methods.train_config import TrainConfig
from workers.training.base.distributed import ALONE, World
from workers.training.base.types import Group, Prompt, Split
from workers.training.model.policy import Policy
from workers.training.passes.forward import (
    Batch,
    PackedCompletion,
    completion_states,
    make_batches,
    per_completion,
    token_kl,
)
from workers.training.sampling.rollout import Sampling, sample_groups
from workers.training.update import fillers

ROWS_FOR_AN_ERROR = 4
"""Validation rows from which on it is said how sure their mean is. Of three rows all differences have the
same sign in one case of four by luck alone, and three equal ones would seem certain: a sign-flip test claims
nothing from three (its smallest p is 1/8, in the trial of selections).
"""


class Estimate(NamedTuple):
    """Holds a mean and its standard error; None where there are too few values to know it."""

    mean: float
    stderr: float | None
    n: int


def row_rewards(groups: Sequence[Group]) -> list[float | None]:
    """Returns the mean reward of each validation row, in grader units; None where no completion has one."""
    rows: list[float | None] = []
    for group in groups:
        found = [reward for grade in group.grades if (reward := grade.reward) is not None]
        rows.append(math.fsum(found) / len(found) if found else None)
    return rows


def estimate(values: Sequence[float | None], known_from: int = 2) -> Estimate | None:
    """Returns mean and standard error over the values that are there; None without any.

    The error is not known of fewer than `known_from` values.
    """
    found = [value for value in values if value is not None]
    if not found:
        return None
    mean = math.fsum(found) / len(found)
    if len(found) < known_from:
        return Estimate(mean, None, len(found))
    variance = math.fsum((value - mean) ** 2 for value in found) / (len(found) - 1)
    return Estimate(mean, math.sqrt(variance / len(found)), len(found))


def mean_of_rows(rows: Sequence[float | None]) -> Estimate | None:
    """Returns the mean reward of validation rows; None without any."""
    return estimate(rows, known_from=ROWS_FOR_AN_ERROR)


@dataclass(frozen=True)
class Evaluation:
    """Holds the graded completions of each split of one evaluation; `judging` is the one that decides."""

    groups: Mapping[Split, list[Group]]
    judging: Split

    @property
    def grades(self) -> list[Grade]:
        """Returns all grades."""
        return [grade for groups in self.groups.values() for group in groups for grade in group.grades]

    @property
    def rows(self) -> list[float | None]:
        """Returns what checkpoints are judged by: a reward for each validation row, or fresh completion."""
        groups = self.groups[self.judging]
        if self.judging == "valid":
            return row_rewards(groups)
        return [grade.reward for group in groups for grade in group.grades]

    def reward(self, split: Split) -> Estimate | None:
        """Returns the mean reward of a split's rows; None if it has none, or none was graded."""
        return mean_of_rows(row_rewards(self.groups.get(split, [])))


@torch.no_grad()
def kl_to_reference(
    policy: Policy, probe: Sequence[Prompt], config: TrainConfig, world: World = ALONE
) -> Estimate:
    """Measures the exact KL(policy || base), in nats per token, on one completion for each probe prompt.

    Completions are sampled from the policy at temperature 1 with the same random numbers every time; the KL
    is over the whole vocabulary at each of their tokens, at temperature 1 as well whatever the training's
    temperature, and not over the tokens that a response format allows: what is measured is how far the model
    has moved. It is the mean over a prompt's tokens, then over prompts, with the standard error over prompts.
    Each process measures a share of the prompts.
    """
    sampling = Sampling(
        samples=1,
        max_tokens=config.max_completion_tokens,
        temperature=1.0,
        key=("probe", config.seed),
        stop=config.stop,
        grammar=policy.grammar,
    )
    mine = world.slice(probe)
    groups = sample_groups(policy, mine, sampling) if mine else []
    completions = [PackedCompletion(group.prompt, group.completions[0]) for group in groups]
    batches = make_batches(completions, config.micro_batch_tokens, policy.device) if completions else []
    means: list[float | None] = [None] * len(completions)
    for batch in batches:
        for i, values in zip(batch.indices, per_completion(_batch_kl(policy, batch), batch), strict=True):
            means[i] = float(values.mean())
    for batch in fillers(policy, probe[0], len(batches), world):
        _batch_kl(policy, batch)
    found = estimate(world.merge(means))
    assert found is not None, "a run has at least one row"
    return found


def _batch_kl(policy: Policy, batch: Batch) -> Tensor:
    """Returns the exact KL at each of a batch's completion tokens, (N,) nats."""
    states = completion_states(policy.model, batch)
    with policy.reference() as reference:
        ref_states = completion_states(reference, batch)
        ref_head = reference.get_output_embeddings()
        return token_kl(states, policy.model.get_output_embeddings(), ref_states, ref_head)
