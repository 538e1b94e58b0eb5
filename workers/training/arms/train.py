"""Trains a job's arms in turn, one policy in memory at a time: rungs of seeds, then the controls.

Each arm is an ordinary run in a folder of its own, which is left at the end of its rung and resumed from its
state for the next one. What the job saves is all arms' states together (states.py), so that it can be killed
anywhere and goes on with the same history.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from graders import Grader
from graders.types import add_usages
from methods.halving import arm_seeds, control_steps, rungs
from methods.rows import Row
from methods.train_config import TrainConfig
from workers.training.arms import outcome, states
from workers.training.arms.recorder import ArmRecorder, Whose
from workers.training.base.distributed import World
from workers.training.base.errors import NonFinite, RunFailed, RunPaused
from workers.training.base.recorder import Recorder
from workers.training.checkpoints import checkpoint_folder, deliverable, to_keep
from workers.training.recorders import Silent
from workers.training.result import RunResult
from workers.training.run import Run
from workers.training.state import Progress, fingerprint, state_folder
from workers.training.trust.arm import Arm, Base, Totals
from workers.training.trust.budgets import NAMES as BUDGETS
from workers.training.trust.halving import Standing, halve, halved_in_words, ranked, saved_in_words
from workers.training.trust.selection import choose, judge


class Given(NamedTuple):
    """Holds what `train` is given for a job."""

    config: TrainConfig
    train_rows: Sequence[Row]
    valid_rows: Sequence[Row]
    grader: Grader
    recorder: Recorder
    run_dir: Path
    world: World
    canary_rows: Sequence[Row] | None
    gold: Grader | None


def train_arms(given: Given, advance: Callable[[Run], None]) -> RunResult:
    """Trains all seeds and controls of a job, from its last state if there is one.

    `advance` takes a run's steps until it is to be left. Raises what a single run does.
    """
    return Arms(given, advance).train()


class Arms:
    """Keeps a job with several arms under way. Its calls are collective."""

    def __init__(self, given: Given, advance: Callable[[Run], None]) -> None:
        config = given.config
        self._given = given
        self._config = config
        self._advance = advance
        self._recorder: Recorder = given.recorder if given.world.is_main else Silent()
        self._total = config.total_steps(len(given.train_rows))
        self._plan = rungs(self._total, config.eval_interval, config.n_seeds)
        self._seeds = [
            Whose(number, seed, False) for number, seed in enumerate(arm_seeds(config.seed, config.n_seeds))
        ]
        self._controls = [Whose(config.n_seeds + i, config.seed, True) for i in range(len(config.controls))]
        self._belongs_to = fingerprint(config, given.train_rows, given.valid_rows)
        given.run_dir.mkdir(parents=True, exist_ok=True)
        self._job = states.resume(given.run_dir, self._belongs_to, self._recorder, given.world)

    def train(self) -> RunResult:
        """Trains what is left, and returns what is to be delivered."""
        for number, rung in enumerate(self._plan):
            if len(self._job.went_on) > number:
                continue
            for whose in self._racing:
                self._run_seed(whose, rung.end)
            if number < len(self._plan) - 1 and not self._is_spent:
                self._halve(number)
        for whose in self._controls:
            self._run_control(whose)
        if self._config.n_seeds > 1:
            self._tell_saved()
        if self._given.world.is_main:
            for whose in self._begun:
                self._drop(whose, {one.step for one in self._job.arms[whose.number].kept})
        return self._result()

    @property
    def _racing(self) -> list[Whose]:
        """The seeds that may still be trained, best first from the first halving on."""
        if not self._job.went_on:
            return self._seeds
        return [self._seeds[number] for number in self._job.went_on[-1]]

    @property
    def _begun(self) -> list[Whose]:
        """The seeds that have been trained at all."""
        return [whose for whose in self._seeds if whose.number in self._job.arms]

    def _is_done(self, whose: Whose) -> bool:
        """Whether a seed will not be trained any more, so that its weights are not needed."""
        progress = self._job.arms[whose.number]
        return whose.number in self._job.failed or progress.step >= self._total or _is_over(progress)

    def _standing(self, whose: Whose) -> Standing:
        return outcome.standing(
            whose, self._job.arms[whose.number], self._config.measuring_seed, whose.number in self._job.failed
        )

    @property
    def _is_spent(self) -> bool:
        """Whether an arm has used up a budget, which is the job's."""
        return any(progress.ended in BUDGETS for progress in self._job.arms.values())

    def _run_seed(self, whose: Whose, until: int) -> None:
        """Trains a seed. One that diverges is out, and the others go on.

        Where all that still race have diverged, the checkpoints of those that went out before decide. With no
        seed left at all the job fails.
        """
        failed = self._job.failed
        if whose.number in failed:
            return
        try:
            self._run(whose, until)
        except NonFinite as failure:
            failed[whose.number] = failure.code
            if all(other.number in failed for other in self._seeds):
                raise
            goes_on = any(other.number not in failed for other in self._racing)
            rest = "the other seeds go on" if goes_on else "what the other seeds have measured decides"
            self._recorder.note("warn", f"{whose}: {failure} It is out; {rest}.")

    def _run_control(self, whose: Whose) -> None:
        """Trains a control. That it cannot be trained is no fault of the job."""
        if whose.number in self._job.failed:
            return
        try:
            self._run(whose, control_steps(self._total, self._config.eval_interval))
        except RunFailed as failure:
            self._job.failed[whose.number] = failure.code
            self._recorder.note("warn", f"{whose}: {failure}")

    def _run(self, whose: Whose, until: int) -> None:
        """Trains an arm up to a step of its own, if it is not over."""
        job, number = self._job, whose.number
        before = job.arms.get(number)
        if self._is_spent or (before is not None and (before.step >= until or _is_over(before))):
            return
        self._take_base(whose)
        job.segments.begin(number, before.step if before else 0, job.step)
        arm = self._arm(whose, until)
        recorder = ArmRecorder(
            self._recorder,
            whose,
            lambda step: job.segments.of(number, step),
            arm.others,
            lambda step, folder: self._save(whose, step, folder),
        )
        with self._make_run(whose, arm, recorder) as run:
            job.arms[number] = run.progress
            job.sampled = run.evaluator.sampled
            run.measure_base()
            self._advance(run)
            if run.endings.is_pausing:
                run.snapshot()
                raise RunPaused(run.progress.step)

    def _make_run(self, whose: Whose, arm: Arm, recorder: Recorder) -> Run:
        given = self._given
        return Run(
            self._config_of(whose),
            given.train_rows,
            given.valid_rows,
            given.grader,
            recorder,
            states.arm_folder(given.run_dir, whose.number),
            given.world,
            given.canary_rows,
            given.gold,
            arm,
        )

    def _config_of(self, whose: Whose) -> TrainConfig:
        """Returns the config of one arm. A control goes to its end."""
        own: dict[str, Any] = {
            "seed": whose.seed,
            "eval_seed": self._config.measuring_seed,
            "n_seeds": 1,
            "controls": (),
        }
        if whose.number > 0:  # whether the reward is flat, the first arm has found
            own["allow_flat_reward"] = True
        if whose.is_control:
            own["early_stop"] = False
        return self._config.model_copy(update=own)

    def _arm(self, whose: Whose, until: int) -> Arm:
        others = [progress for number, progress in self._job.arms.items() if number != whose.number]
        looks = [
            look
            for other in self._seeds
            if other.number in self._job.arms and other != whose and not whose.is_control
            for look in outcome.job_looks(self._job, other.number, self._job.arms[other.number].looks)
        ]
        return Arm(
            until=until,
            is_control=whose.is_control,
            is_alone=False,
            base=self._base(whose),
            looks=tuple(looks),
            planned_looks=self._config.planned_looks(len(self._given.train_rows)),
            others=Totals(
                trained_tokens=sum(progress.trained_tokens for progress in others),
                seconds=sum(progress.seconds for progress in others),
                sampled_tokens=sum(progress.sampled_tokens for progress in others),
                usage=add_usages(progress.grader_usage for progress in others),
            ),
            spent_before=_spent_before(others),
        )

    def _base(self, whose: Whose) -> Base | None:
        """Returns what the first arm has found of the base, for the others."""
        if whose.number == 0:
            return None
        first = self._job.arms[0]
        folder = checkpoint_folder(states.arm_folder(self._given.run_dir, whose.number), 0)
        checkpoint = next(one for one in first.kept if one.step == 0)
        return Base(first.looks[0], tuple(first.gold[:1]), replace(checkpoint, folder=folder))

    def _take_base(self, whose: Whose) -> None:
        """Gives a seed that begins the base's checkpoint."""
        base = None if whose.is_control or not self._given.world.is_main else self._base(whose)
        if base is not None and not base.checkpoint.folder.exists():
            source = next(one.folder for one in self._job.arms[0].kept if one.step == 0)
            states.link_folder(source, base.checkpoint.folder)
        self._given.world.wait()

    def _save(self, whose: Whose, step: int, folder: Path) -> None:
        """Saves the job's state when an arm has saved its own; then drops what no state needs any more."""
        run_dir, job = self._given.run_dir, self._job
        whole = {
            other.number: state_folder(states.arm_folder(run_dir, other.number), job.arms[other.number].step)
            for other in self._racing
            if other.number in job.arms and not self._is_done(other)
        }
        whole[whose.number] = folder
        now = job.segments.of(whose.number, step)
        self._recorder.state(now, states.save(run_dir, now, job, whole, self._belongs_to))
        states.prune(run_dir, now)
        for other in self._begun:
            if other.number not in whole:
                self._drop(other, states.steps_needed(run_dir, other.number))

    def _drop(self, whose: Whose, needed: Collection[int]) -> None:
        """Removes an arm's checkpoints but those of some steps of its own, and tells each before it goes."""
        for step in states.checkpoint_steps(self._given.run_dir, whose.number):
            if step not in needed:
                if step > 0:
                    self._recorder.dropped(self._job.segments.of(whose.number, step))
                states.remove_checkpoint(self._given.run_dir, whose.number, step)

    def _halve(self, number: int) -> None:
        """Lets the better half go on. Of the others, checkpoints stay that are among the job's best."""
        job = self._job
        go_on, lost = halve([self._standing(whose) for whose in self._racing])
        job.went_on.append([one.arm for one in go_on])
        self._recorder.note("info", halved_in_words(number + 1, len(self._plan) - 1, go_on, lost))
        best = self._best_checkpoints()
        for whose in self._begun:
            if whose.number not in job.went_on[-1]:
                progress = job.arms[whose.number]
                progress.kept = [one for one in progress.kept if self._stays(whose.number, one.step, best)]
        if self._given.world.is_main:
            for one in lost:
                states.forget(self._given.run_dir, one.arm)
        self._given.world.wait()

    def _stays(self, arm: int, step: int, best: Collection[int]) -> bool:
        """Whether a checkpoint of an arm that is out stays; the base's is the first arm's."""
        return arm == 0 if step == 0 else self._job.segments.of(arm, step) in best

    def _best_checkpoints(self) -> set[int]:
        """Returns the job's steps whose checkpoints are among the best of all seeds."""
        job, seed = self._job, self._config.measuring_seed
        looks = [job.arms[0].looks[0]]
        for whose in self._seeds:
            looks += outcome.job_looks(job, whose.number, job.arms[whose.number].looks)
        judged = judge(looks, seed)
        kept = outcome.kept_checkpoints(job, self._seeds)
        chosen = choose(judged, deliverable(list(kept.values()), self._config))
        gains = {one.step: one.mean for one in judged}
        best = to_keep(
            list(kept.values()), self._config.checkpoints_kept, gains, chosen.step if chosen else 0
        )
        return {one.step for one in best}

    def _tell_saved(self) -> None:
        trained = [self._job.arms[whose.number] for whose in self._begun]
        steps = sum(progress.step for progress in trained)
        seconds = sum(progress.seconds for progress in trained)
        self._recorder.note("info", saved_in_words(len(self._seeds), steps, self._total, seconds))

    def _result(self) -> RunResult:
        job = self._job
        racing = {whose.number for whose in self._racing}
        best_first = ranked([self._standing(whose) for whose in self._begun])
        best_first.sort(key=lambda one: one.arm not in racing)
        seeds = [self._seeds[one.arm] for one in best_first]
        ended = {w.number: self._ended(w, w.number in racing) for w in [*seeds, *self._controls]}
        return outcome.result(self._config, job, seeds, self._controls, ended)

    def _ended(self, whose: Whose, is_racing: bool) -> str:
        """Returns how an arm has ended, in a word."""
        progress = self._job.arms.get(whose.number, Progress())
        planned = control_steps(self._total, self._config.eval_interval) if whose.is_control else self._total
        if whose.number in self._job.failed:
            return self._job.failed[whose.number]
        if progress.ended is not None or progress.step >= planned:
            return progress.ended or "finished"
        spent = next((one.ended for one in self._job.arms.values() if one.ended in BUDGETS), None)
        return spent if spent is not None and (is_racing or whose.is_control) else "halved"


def _is_over(progress: Progress) -> bool:
    return progress.ended is not None


def _spent_before(others: Sequence[Progress]) -> dict[str, float]:
    """Returns the most that had been spent of each budget when one of these arms paused."""
    found: dict[str, float] = {}
    for progress in others:
        for name, spent in progress.spent_before.items():
            found[name] = max(spent, found.get(name, 0.0))
    return found
