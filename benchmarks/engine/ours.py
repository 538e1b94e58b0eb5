"""Our side, through the functions that workers/training/loop.py uses. All that depends on our API is here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import workers.training.kernels.decode  # noqa: F401  # libraries come before memory is measured
from benchmarks.engine.setup import (
    BETA,
    CLIP_HIGH,
    CLIP_LOW,
    LORA_ALPHA,
    LORA_RANK,
    MAX_GRAD_NORM,
    Setup,
)
from benchmarks.engine.timing import StepCost, Timer
from benchmarks.engine.workloads import Reward, make_reward
from graders import Grade, Sample
from methods.train_config import TrainConfig
from workers.training import collector, update
from workers.training.metrics import Clock, train_metrics
from workers.training.model.policy import Policy
from workers.training.prompts import make_prompts
from workers.training.rewards import GradePool, rewards_of
from workers.training.sampling import backend
from workers.training.sampling.rollout import Sampling, sample_groups

SETTINGS = "reference by switching the adapter off (full: a frozen copy), groups without spread left out"


class _RewardGrader:
    """A reward function as a grader."""

    type = "python"
    name = "benchmark"

    def __init__(self, reward: Reward) -> None:
        self._reward = reward

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return Grade(self._reward(sample.output_text, item["row"]))


class Ours:
    """A policy under training. A context manager: leaving it ends the grading threads."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.timer = Timer(setup.device)
        self.config = make_config(setup)
        self.policy = Policy.load(self.config)
        self.rows = setup.rows()
        self.prompts = make_prompts(self.rows, self.policy.tokenizer, self.policy.context, "training")
        if not setup.workload.ends:
            self.policy.end_ids = (setup.never_an_end(self.policy.tokenizer),)
        self.optimizer = update.make_optimizer(self.policy, self.config)
        self.graders = GradePool(_RewardGrader(make_reward(setup.workload)))

    def __enter__(self) -> Ours:
        return self

    def __exit__(self, *_: object) -> None:
        self.graders.close()

    def step(self, step: int) -> StepCost:
        """One step of the training loop; `step` counts from 0."""
        timer = self.timer
        with (
            timer.phase("rest"),
            patch.object(backend, "sample_groups", timer.timed("generate", sample_groups)),
            patch.object(update, "reference_logprobs", timer.timed("reference", update.reference_logprobs)),
            patch.object(update, "_forward_backward", timer.timed("train", update._forward_backward)),
        ):
            prompts = [self.prompts[row] for row in self.setup.rows_of_step(self.rows, step)]
            key = ("train", self.config.seed, step + 1)
            sampling = Sampling(
                self.config.group_size, self.config.max_completion_tokens, self.config.temperature, key
            )
            groups = collector.sample_and_grade(self.policy, prompts, sampling, self.graders, Clock())
            stats = update.update_policy(
                self.policy, self.optimizer, groups, rewards_of(groups), self.config, step + 1
            )
            self.policy.sync_rollout()
            metrics = {**train_metrics(groups), **stats.values}
        lengths = tuple(len(completion.tokens) for group in groups for completion in group.completions)
        return StepCost(
            timer.take(), lengths, sum(len(prompt.tokens) for prompt in prompts), metrics["reward/mean"]
        )


def make_config(setup: Setup) -> TrainConfig:
    """The shared settings as a run's config."""
    workload = setup.workload
    return TrainConfig(
        model=setup.model,
        model_path=setup.folder,
        seed=setup.seed,
        n_epochs=1,
        prompts_per_step=workload.prompts,
        group_size=workload.group,
        max_completion_tokens=workload.max_tokens,
        adapter=setup.adapter,
        lora_rank=LORA_RANK,
        lora_alpha=LORA_ALPHA,
        learning_rate=setup.learning_rate,
        max_grad_norm=MAX_GRAD_NORM,
        beta=BETA,
        clip_low=CLIP_LOW,
        clip_high=CLIP_HIGH,
        eval_interval=1_000_000,
        dtype=setup.dtype,
        device=setup.device,
    )
