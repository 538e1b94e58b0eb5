"""The training loop: Group Relative Policy Optimisation, Shao et al. 2024, arXiv:2402.03300.

Departures, each argued where it is coded: token-level mean and asymmetric clip as in DAPO (losses.py); the
ratio is to the sampling logprobs, and the KL term is multiplied by it (losses.py); a floor under the group's
standard deviation (advantages.py); groups whose rewards are all equal are left out of the update (update.py);
what is delivered is chosen by validation, with the untouched base among the candidates (checkpoints.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from graders import Grader
from workers.config import TrainConfig
from workers.dataset import Row
from workers.training.advantages import group_advantages
from workers.training.checkpoints import select
from workers.training.errors import RunCancelled
from workers.training.metrics import Clock, train_metrics
from workers.training.recorder import Recorder
from workers.training.rewards import rewards_of
from workers.training.rollout import sample_groups
from workers.training.run import Run
from workers.training.types import RunResult
from workers.training.update import update_policy


def train(
    config: TrainConfig,
    train_rows: Sequence[Row],
    valid_rows: Sequence[Row],
    grader: Grader,
    recorder: Recorder,
    run_dir: Path,
    should_stop: Callable[[], bool] = lambda: False,
) -> RunResult:
    """Train until the last step, from the last state in `run_dir` if there is one.

    Asks `should_stop` before every step, and saves its state if it shall. Raises `RunCancelled`, or
    `RunFailed` with a stable code.
    """
    with Run(config, train_rows, valid_rows, grader, recorder, run_dir) as run:
        run.measure_base()
        for step in range(run.progress.step + 1, run.total_steps + 1):
            if should_stop():
                run.save()
                raise RunCancelled(step - 1)
            clock = Clock(recorder)
            with clock.phase("sampling", "sampling"):
                groups = sample_groups(run.policy, run.prompts(step), run.sampling(step))
            with clock.phase("grading", "grading"):
                groups = run.graders.grade(groups)
            recorder.rollouts("train", step, run.epoch(step), groups)
            run.check_grades(step, groups)
            rewards = rewards_of(groups)
            advantages = group_advantages(rewards.values, rewards.graded, scale_by_std=config.scale_advantage)
            with clock.phase("updating", "updating"):
                stats = update_policy(run.policy, run.optimizer, groups, rewards, advantages, config, step)
            run.check_update(step, stats)
            run.finish(step, {**train_metrics(groups), **stats.values}, clock)
        best = select(run.progress.kept).checkpoint
        return RunResult(best=best, steps=run.total_steps, trained_tokens=run.progress.trained_tokens)
