"""The training loop: Group Relative Policy Optimisation, Shao et al. 2024, arXiv:2402.03300.

Departures, each argued where it is coded: token-level mean and asymmetric clip as in DAPO (losses.py); the
ratio is to the sampling logprobs, and the KL term is multiplied by it (losses.py); a floor under the group's
standard deviation (advantages.py); groups whose rewards are all equal, or differ by no more than noise, enter
the KL term alone, with one completion each (learnable.py);
what is delivered is chosen by a test over all checkpoints and the untouched base (trust/selection.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from graders import Grader
from methods.rows import Row
from methods.train_config import TrainConfig
from workers.training.arms.beside import Seats
from workers.training.arms.job import Given
from workers.training.arms.train import train_arms
from workers.training.base.determinism import deterministic
from workers.training.base.distributed import ALONE, World
from workers.training.base.errors import JudgeLost, RunCancelled, RunPaused
from workers.training.base.recorder import Recorder
from workers.training.episodes.environment import Environment
from workers.training.metrics import Clock, train_metrics
from workers.training.result import RunResult
from workers.training.rewards import rewards_of
from workers.training.run import Run
from workers.training.sampling.backend import OpenRollouts
from workers.training.update import update_policy


def train(
    config: TrainConfig,
    train_rows: Sequence[Row],
    valid_rows: Sequence[Row],
    grader: Grader,
    recorder: Recorder,
    run_dir: Path,
    should_stop: Callable[[], bool] = lambda: False,
    world: World = ALONE,
    should_pause: Callable[[], bool] = lambda: False,
    canary_rows: Sequence[Row] | None = None,
    gold_grader: Grader | None = None,
    seats: Seats | None = None,
    environment: Environment | None = None,
    rollouts: OpenRollouts | None = None,
    most_pass_tokens: int | None = None,
) -> RunResult:
    """Trains until the last step, from the last state in `run_dir` if there is one.

    A run whose evaluations are level, or that has spent a budget, ends before that, or pauses.

    Asks `should_stop` and `should_pause` before every step, and saves its state if it shall; for a pause it
    makes a checkpoint too. It also pauses where a server that grades or samples was waited for in vain.
    Raises `RunCancelled`, `RunPaused`, or `RunFailed` with a stable code. Every process of a world calls it
    with the same rows and folder; only the main one asks, tells the recorder and writes. `canary_rows` are
    the user's own texts for the canary; None stands for those of the package. `gold_grader` is measured by
    and never trained on. With several seeds, or with controls, the job's arms are trained in turn, or side
    by side in processes that `seats` start (arms/train.py). With an `environment`, completions are episodes:
    it replies to each turn of the policy (episodes/). `rollouts` opens what samples; by default that is the
    sampler in this process (sampling/backend.py). `most_pass_tokens` is what `PassTooLarge` of an attempt
    before says of passes.
    """
    given = Given(
        config,
        train_rows,
        valid_rows,
        grader,
        gold_grader,
        recorder,
        run_dir,
        world,
        canary_rows,
        should_stop,
        should_pause,
        environment,
        rollouts,
        most_pass_tokens,
    )
    with deterministic(config.deterministic, world.device(config.device)):
        return train_arms(given, advance, seats) if config.has_arms else _train_one(given)


def _train_one(given: Given) -> RunResult:
    """Trains a job of one arm."""
    data = (given.config, given.train_rows, given.valid_rows, given.grader, given.recorder, given.run_dir)
    more = (given.world, given.canary_rows, given.gold)
    with Run(
        *data,
        *more,
        environment=given.environment,
        rollouts=given.rollouts,
        most_pass_tokens=given.most_pass_tokens,
    ) as run:
        run.measure_base()
        advance(run, given.should_stop, given.should_pause)
        return run.result()


def advance(run: Run, should_stop: Callable[[], bool], should_pause: Callable[[], bool]) -> None:
    """Takes the steps of a run that are left. Raises `RunCancelled` or `RunPaused` where it shall end."""
    with run.telling_of_lost_judges():
        _advance(run, should_stop, should_pause)


def _advance(run: Run, should_stop: Callable[[], bool], should_pause: Callable[[], bool]) -> None:
    world = run.world
    for step in run.steps():
        if world.broadcast(world.is_main and should_stop()):
            run.save()
            raise RunCancelled(step - 1)
        if run.endings.is_pausing or world.broadcast(world.is_main and should_pause()):
            run.snapshot()
            raise RunPaused(step - 1)
        clock = Clock(run.recorder)
        try:
            rollouts = run.collector.collect(step, clock)
        except JudgeLost:
            run.save()  # nothing of this step has been trained on
            raise
        run.recorder.rollouts("train", step, run.epoch(step), rollouts.groups)
        run.check_grades(step, rollouts.groups)
        rewards = rewards_of(rollouts.trained)
        with run.collector.ahead(step + 1, clock), clock.phase("updating", "updating"):
            stats = update_policy(
                run.policy,
                run.optimizer,
                rollouts.trained,
                rewards,
                run.watch.config_now(),
                step,
                world,
                run.progress.guard.lr_scale,
            )
        run.check_update(step, stats)
        values = (
            train_metrics(rollouts.groups, run.progress.rewards_seen.scale(run.config).least_spread)
            | run.collector.metrics(rollouts)
            | run.watch.heard(step, rollouts.groups)
            | stats.values
        )
        run.finish(step, values, clock)
