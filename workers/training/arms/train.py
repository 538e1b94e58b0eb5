"""Trains a job's arms: rungs of seeds, then the controls.

Each arm is an ordinary run in a folder of its own, which is left at the end of its rung and resumed from its
state for the next one. What the job saves is all arms' states together (states.py), so that it can be killed
anywhere and goes on with the same history. Those of a rung are trained in turn (turns.py), or side by side
where the job has several devices (beside.py), with the same results.
"""

from __future__ import annotations

from collections.abc import Collection

from workers.training.arms import outcome, states
from workers.training.arms.beside import Beside, Seats
from workers.training.arms.job import ArmsJob, Given
from workers.training.arms.recorder import Whose
from workers.training.arms.turns import Advance, InTurn
from workers.training.checkpoints import deliverable, to_keep
from workers.training.result import RunResult
from workers.training.state import Progress
from workers.training.trust.budgets import NAMES as BUDGETS
from workers.training.trust.halving import Standing, halve, halved_in_words, ranked, saved_in_words
from workers.training.trust.selection import choose, judge


def train_arms(given: Given, advance: Advance, seats: Seats | None = None) -> RunResult:
    """Trains all seeds and controls of a job, from its last state if there is one.

    With `seats`, those of a rung are trained side by side in processes of their own. Raises what a single run
    does.
    """
    job = ArmsJob(given)
    trainer = InTurn(job, advance) if seats is None else Beside(job, seats)
    return Arms(job, trainer).train()


class Arms:
    """Takes a job with several arms to its end. Its calls are collective."""

    def __init__(self, job: ArmsJob, trainer: InTurn | Beside) -> None:
        self._job = job
        self._trainer = trainer

    def train(self) -> RunResult:
        """Trains what is left, and returns what is to be delivered."""
        job = self._job
        self._tell_how()
        for number, rung in enumerate(job.plan):
            if len(job.progress.went_on) > number:
                continue
            self._train(job.racing, rung.end)
            if number < len(job.plan) - 1 and not job.is_spent:
                self._halve(number)
        self._train(job.controls, job.control_steps)
        if job.config.n_seeds > 1:
            self._tell_saved()
        if job.given.world.is_main:
            for whose in job.begun:
                job.drop(whose, {one.step for one in job.progress.arms[whose.number].kept})
        return self._result()

    def _train(self, arms: list[Whose], until: int) -> None:
        self._job.reserve(arms, until)
        self._trainer.train(arms, until)

    def _tell_how(self) -> None:
        """Says, when a job with several devices begins, whether its seeds share them or take one each."""
        job, devices = self._job, self._job.config.processes
        if job.progress.arms or job.config.n_seeds == 1 or devices == 1:
            return
        if isinstance(self._trainer, Beside):
            said = f"Up to {devices} seeds train side by side, each in a process of its own."
        elif job.config.sharding == "fsdp":
            said = (
                f"Seeds train in turn: the model is sharded, so each of them takes all {devices} processes."
            )
        else:
            said = f"Seeds train in turn, and all {devices} processes share each step."
        job.recorder.note("info", said)

    def _standing(self, whose: Whose) -> Standing:
        job = self._job
        progress, is_failed = job.progress.arms[whose.number], whose.number in job.progress.failed
        return outcome.standing(whose, progress, job.config.measuring_seed, is_failed)

    def _halve(self, number: int) -> None:
        """Lets the better half go on. Of the others, checkpoints stay that are among the job's best."""
        job, progress = self._job, self._job.progress
        go_on, lost = halve([self._standing(whose) for whose in job.racing])
        progress.went_on.append([one.arm for one in go_on])
        job.recorder.note("info", halved_in_words(number + 1, len(job.plan) - 1, go_on, lost))
        best = self._best_checkpoints()
        for whose in job.begun:
            if whose.number not in progress.went_on[-1]:
                own = progress.arms[whose.number]
                own.kept = [one for one in own.kept if self._stays(whose.number, one.step, best)]
        if job.given.world.is_main:
            for one in lost:
                states.forget(job.given.run_dir, one.arm)
        job.given.world.wait()

    def _stays(self, arm: int, step: int, best: Collection[int]) -> bool:
        """Whether a checkpoint of an arm that is out stays; the base's is the first arm's."""
        return arm == 0 if step == 0 else self._job.progress.segments.of(arm, step) in best

    def _best_checkpoints(self) -> set[int]:
        """Returns the job's steps whose checkpoints are among the best of all seeds."""
        config, progress = self._job.config, self._job.progress
        looks = [progress.arms[0].looks[0]]
        for whose in self._job.seeds:
            looks += outcome.job_looks(progress, whose.number, progress.arms[whose.number].looks)
        judged = judge(looks, config.measuring_seed)
        kept = outcome.kept_checkpoints(progress, self._job.seeds)
        chosen = choose(judged, deliverable(list(kept.values()), config))
        gains = {one.step: one.mean for one in judged}
        best = to_keep(list(kept.values()), config.checkpoints_kept, gains, chosen.step if chosen else 0)
        return {one.step for one in best}

    def _tell_saved(self) -> None:
        trained = [self._job.progress.arms[whose.number] for whose in self._job.begun]
        steps = sum(progress.step for progress in trained)
        seconds = sum(progress.seconds for progress in trained)
        said = saved_in_words(len(self._job.seeds), steps, self._job.total, seconds)
        self._job.recorder.note("info", said)

    def _result(self) -> RunResult:
        job = self._job
        racing = {whose.number for whose in job.racing}
        best_first = ranked([self._standing(whose) for whose in job.begun])
        best_first.sort(key=lambda one: one.arm not in racing)
        seeds = [job.seeds[one.arm] for one in best_first]
        ended = {w.number: self._ended(w, w.number in racing) for w in [*seeds, *job.controls]}
        return outcome.result(job.config, job.progress, seeds, job.controls, ended)

    def _ended(self, whose: Whose, is_racing: bool) -> str:
        """Returns how an arm has ended, in a word."""
        arms = self._job.progress.arms
        progress = arms.get(whose.number, Progress())
        planned = self._job.control_steps if whose.is_control else self._job.total
        if whose.number in self._job.progress.failed:
            return self._job.progress.failed[whose.number]
        if progress.ended is not None or progress.step >= planned:
            return progress.ended or "finished"
        spent = next((one.ended for one in arms.values() if one.ended in BUDGETS), None)
        return spent if spent is not None and (is_racing or whose.is_control) else "halved"
