"""Trains arms in turn in this process, one policy in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workers.training.arms.job import ArmsJob
from workers.training.arms.recorder import Whose
from workers.training.base.errors import RunFailed, RunPaused
from workers.training.run import Run

Advance = Callable[[Run, Callable[[], bool], Callable[[], bool]], None]
"""Takes a run's steps until it is to be left; asks the two whether to stop, and whether to pause."""


class InTurn:
    """Trains each arm to the end of its rung before the next one."""

    def __init__(self, job: ArmsJob, advance: Advance) -> None:
        self._job = job
        self._advance = advance

    def train(self, arms: Sequence[Whose], until: int) -> None:
        """Trains what is left of arms up to a step of their own. Raises what a single run does."""
        for whose in arms:
            if self._job.is_left(whose, until):
                try:
                    self._run(whose, until)
                except RunFailed as failure:
                    self._job.lose(whose, failure)

    def _run(self, whose: Whose, until: int) -> None:
        job, given = self._job, self._job.given
        arm = job.begin(whose, until, job.progress.seconds)
        with Run(
            job.config_of(whose),
            given.train_rows,
            given.valid_rows,
            given.grader,
            job.recorder_of(whose),
            job.folder_of(whose),
            given.world,
            given.canary_rows,
            given.gold,
            arm,
            given.environment,
            given.rollouts,
            given.most_pass_tokens,
        ) as run:
            job.progress.arms[whose.number] = run.progress
            job.progress.sampled = run.evaluator.sampled
            run.measure_base()
            self._advance(run, given.should_stop, given.should_pause)
            if run.endings.is_pausing:
                run.snapshot()
                raise RunPaused(run.progress.step)
