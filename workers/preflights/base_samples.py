"""Samples from the untouched base as a training would, and times what a step of the training would take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import torch

from graders import Grader
from methods.rows import Row
from methods.train_config import TrainConfig
from workers.training.base.randomness import shuffled
from workers.training.base.types import Group
from workers.training.collector import sample_and_grade
from workers.training.episodes.environment import Environment
from workers.training.episodes.episodes import Episodes
from workers.training.metrics import Clock
from workers.training.model.policy import Policy
from workers.training.prompts import make_prompts
from workers.training.rewards import GradePool, Rewards
from workers.training.sampling.rollout import Sampling
from workers.training.update import make_optimizer, update_policy

SECONDS = 600.0
"""After so long no further prompts are begun. Chosen, not measured: an answer should come while somebody
waits for it."""


@dataclass(frozen=True)
class Limits:
    """How much is sampled. The defaults were chosen: 256 completions are what a job's own look at its spread
    asks for, and a tenth to a fiftieth of a job's sampling.

    Attributes:
        prompts: training prompts, drawn by the seed.
        samples: completions for each.
        max_tokens: after so many no further prompts are begun.
    """

    prompts: int = 32
    samples: int = 8
    max_tokens: int = 65_536


COSTLY = Limits(prompts=8, samples=4)
"""The same where each grade asks a judge or another server: 32 calls."""


@dataclass
class Samples:
    """Holds what was sampled, graded.

    Attributes:
        lines: the line of each group's prompt in the training file.
        sampling: seconds of sampling for each token, and of waiting for grades for each completion, after the
            first batch, which also warmed up; of that one where there is no other.
        updating: seconds of an update for each completion in it; None where it could not be measured.
    """

    groups: list[Group] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    device: str = "cpu"
    seconds_per_token: float = 0.0
    seconds_per_grade: float = 0.0
    seconds_per_update: float | None = None

    @property
    def completion_tokens(self) -> list[int]:
        """Returns how many tokens the model chose in each completion."""
        return [each.n_sampled for group in self.groups for each in group.completions]


def sample_base(
    config: TrainConfig,
    rows: Sequence[Row],
    grader: Grader,
    limits: Limits,
    tell: Callable[[str, int, int], None],
    environment: Environment | None = None,
) -> Samples:
    """Samples and grades completions of some training rows, then times an update. `tell` hears of progress.

    With an `environment` they are episodes, whose tools are called. Raises what the engine raises:
    `ModelInvalid`, `DeviceMissing`, `PromptInvalid`.
    """
    tell("loading", 0, 0)
    policy = Policy.load(config)
    chosen = sorted(shuffled(len(rows), "preflight", config.seed)[: limits.prompts])
    drawn = [rows[i] for i in chosen]
    prompts = make_prompts(drawn, policy.tokenizer, policy.context, "training", policy.vocabulary)
    found = Samples(device=policy.device.type)
    episodes = None
    if environment is not None:
        episodes = Episodes(environment, policy.reader, config, policy)
    graders = GradePool(grader, threads=config.grade_concurrency, timeout=config.grade_seconds)
    sampling = Sampling(
        samples=limits.samples,
        max_tokens=config.max_completion_tokens,
        temperature=config.temperature,
        key=("preflight", config.seed),
        stop=config.stop,
        grammar=policy.grammar,
        reader=policy.reader,
        thinking_tokens=config.max_thinking_tokens,
    )
    size = _prompts_at_a_time(config, limits)
    deadline = time.monotonic() + SECONDS
    timed: list[_Timed] = []
    try:
        for start in range(0, len(prompts), size):
            if sum(found.completion_tokens) >= limits.max_tokens or time.monotonic() > deadline:
                break
            tell("sampling", start, len(prompts))
            clock = Clock()
            some = prompts[start : start + size]
            batch = sample_and_grade(policy, some, sampling, graders, clock, episodes)
            timed.append(_Timed(batch, clock))
            found.groups += batch
            found.lines += [rows[chosen[i]].line for i in range(start, start + len(batch))]
    finally:
        graders.close()
        if episodes is not None:
            episodes.close()
    _note_speed(found, timed[1:] or timed)
    tell("updating", 0, 0)
    found.seconds_per_update = _update_seconds(policy, config, timed[-1].groups)
    return found


class _Timed:
    """One batch, and what it took."""

    def __init__(self, groups: list[Group], clock: Clock) -> None:
        self.groups = groups
        self.sampling = clock.seconds.get("sampling", 0.0)
        self.grading = clock.seconds.get("grading", 0.0)
        self.completions = [each for group in groups for each in group.completions]
        self.tokens = sum(each.n_sampled for each in self.completions)


def _prompts_at_a_time(config: TrainConfig, limits: Limits) -> int:
    """Returns as many as a step has, or as few as keep one batch within the budget of tokens."""
    affordable = limits.max_tokens // (limits.samples * config.max_completion_tokens)
    return max(1, min(config.prompts_per_step, affordable))


def _note_speed(found: Samples, timed: Sequence[_Timed]) -> None:
    found.seconds_per_token = sum(each.sampling for each in timed) / max(1, sum(e.tokens for e in timed))
    found.seconds_per_grade = sum(each.grading for each in timed) / sum(len(e.completions) for e in timed)


def _update_seconds(policy: Policy, config: TrainConfig, groups: Sequence[Group]) -> float | None:
    """Returns the seconds of an update for each completion, as if every group had spread.

    The weights it changes are thrown away. A first update warms up. None where there is nothing to compare.
    """
    groups = [_of_size(group, config.group_size) for group in groups]
    size = len(groups[0].completions)
    if size < 2:
        return None
    optimizer = make_optimizer(policy, config)
    values = torch.arange(size, dtype=torch.float64).remainder(2).repeat(len(groups), 1)
    rewards = Rewards(values, torch.ones_like(values, dtype=torch.bool))
    update_policy(policy, optimizer, groups[:1], Rewards(values[:1], rewards.graded[:1]), config, 1)
    policy.sync_rollout()
    start = time.perf_counter()
    stats = update_policy(policy, optimizer, groups, rewards, config, 2)
    if policy.device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / (size * len(groups)) if stats.values else None


def _of_size(group: Group, size: int) -> Group:
    return replace(group, completions=group.completions[:size], grades=group.grades[:size])


def examples(samples: Samples, most: int, characters: int) -> list[dict[str, Any]]:
    """Returns one answer of each of the first prompts, with its grade, as JSON has it."""
    shown = []
    for line, group in list(zip(samples.lines, samples.groups, strict=True))[:most]:
        completion, grade = group.completions[0], group.grades[0]
        failure = (
            {"kind": grade.failure.kind.value, "message": grade.failure.message} if grade.failure else None
        )
        shown.append(
            {"line": line, "text": completion.text[:characters], "reward": grade.reward, "failure": failure}
        )
    return shown


def mean_length(samples: Samples) -> float:
    """Returns the mean tokens of a completion."""
    return fmean(samples.completion_tokens)
