"""What is known of a job with several arms, what each of them is given, and how their states are saved."""

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
from workers.training.base.errors import NonFinite, RunFailed
from workers.training.base.recorder import Recorder
from workers.training.checkpoints import checkpoint_folder
from workers.training.endings import totals_of
from workers.training.episodes.environment import Environment
from workers.training.recorders import Silent
from workers.training.sampling.backend import OpenRollouts
from workers.training.state import Progress, fingerprint, state_folder
from workers.training.trust.arm import Arm, Base, Totals
from workers.training.trust.budgets import NAMES as BUDGETS
from workers.training.trust.selection import Look


class Given(NamedTuple):
    """Holds what `train` is given for a job."""

    config: TrainConfig
    train_rows: Sequence[Row]
    valid_rows: Sequence[Row]
    grader: Grader
    gold: Grader | None
    recorder: Recorder
    run_dir: Path
    world: World
    canary_rows: Sequence[Row] | None
    should_stop: Callable[[], bool]
    should_pause: Callable[[], bool]
    environment: Environment | None
    rollouts: OpenRollouts | None = None
    most_pass_tokens: int | None = None


class ArmsJob:
    """Holds where a job with several arms is. Its calls are collective.

    Attributes:
        progress: where it is.
        training: arms that are being trained now: their folders are theirs.
        spent: what arms have spent that train side by side, as they last told.
    """

    def __init__(self, given: Given) -> None:
        config = given.config
        self.given = given
        self.config = config
        self.recorder: Recorder = given.recorder if given.world.is_main else Silent()
        self.total = config.total_steps(len(given.train_rows))
        self.plan = rungs(self.total, config.eval_interval, config.n_seeds)
        self.control_steps = control_steps(self.total, config.eval_interval)
        self.seeds = [
            Whose(number, seed, False) for number, seed in enumerate(arm_seeds(config.seed, config.n_seeds))
        ]
        self.controls = [Whose(config.n_seeds + i, config.seed, True) for i in range(len(config.controls))]
        self.training: set[int] = set()
        self.spent: dict[int, Totals] = {}
        self._belongs_to = fingerprint(config, given.train_rows, given.valid_rows)
        given.run_dir.mkdir(parents=True, exist_ok=True)
        self.progress = states.resume(given.run_dir, self._belongs_to, self.recorder, given.world)

    @property
    def racing(self) -> list[Whose]:
        """The seeds that may still be trained, best first from the first halving on."""
        if not self.progress.went_on:
            return self.seeds
        return [self.seeds[number] for number in self.progress.went_on[-1]]

    @property
    def begun(self) -> list[Whose]:
        """The seeds that have been trained at all."""
        return [whose for whose in self.seeds if whose.number in self.progress.arms]

    @property
    def is_spent(self) -> bool:
        """Whether an arm has used up a budget, which is the job's."""
        return any(progress.ended in BUDGETS for progress in self.progress.arms.values())

    def is_left(self, whose: Whose, until: int) -> bool:
        """Whether an arm has still steps to make up to one of its own."""
        if self.is_spent or whose.number in self.progress.failed:
            return False
        done = self.progress.arms.get(whose.number)
        return done is None or (done.step < until and done.ended is None)

    def reserve(self, arms: Sequence[Whose], until: int) -> None:
        """Gives those of a rung that have steps left their numbers in the job."""
        for whose in arms:
            if self.is_left(whose, until):
                done = self.progress.arms.get(whose.number)
                self.progress.segments.reserve(whose.number, done.step if done else 0, until)

    def begin(self, whose: Whose, until: int, clock: float) -> Arm:
        """Lets an arm begin, or go on, when the job's clock is at `clock`. Returns what it is told."""
        self._take_base(whose)
        done = self.progress.arms.get(whose.number)
        self.progress.ahead[whose.number] = clock - (done.seconds if done else 0.0)
        return self._arm(whose, until)

    def recorder_of(self, whose: Whose) -> ArmRecorder:
        """Returns what an arm tells, which goes on to the job's recorder."""
        number = whose.number
        return ArmRecorder(
            self.recorder,
            whose,
            lambda step: self.progress.segments.of(number, step),
            lambda: self.others(number),
            lambda folder: self.save(whose, folder),
        )

    def others(self, number: int) -> Totals:
        """Returns what all arms but one have spent by now."""
        known = {arm: totals_of(progress) for arm, progress in self.progress.arms.items()} | self.spent
        others = [spent for arm, spent in known.items() if arm != number]
        return Totals(
            trained_tokens=sum(spent.trained_tokens for spent in others),
            seconds=self.progress.ahead[number],
            sampled_tokens=sum(spent.sampled_tokens for spent in others),
            usage=add_usages(spent.usage for spent in others),
        )

    def lose(self, whose: Whose, failure: RunFailed) -> None:
        """Takes an arm out that cannot be trained. Raises its failure where that is the job's.

        A seed that diverges is out, and the others go on. Where all that still race have diverged, the
        checkpoints of those that went out before decide. With no seed left at all the job fails. That a
        control cannot be trained is no fault of the job.
        """
        failed = self.progress.failed
        if whose.is_control:
            failed[whose.number] = failure.code
            self.recorder.note("warn", f"{whose}: {failure}")
            return
        if not isinstance(failure, NonFinite):
            raise failure
        failed[whose.number] = failure.code
        if all(other.number in failed for other in self.seeds):
            raise failure
        goes_on = any(other.number not in failed for other in self.racing)
        rest = "the other seeds go on" if goes_on else "what the other seeds have measured decides"
        self.recorder.note("warn", f"{whose}: {failure} It is out; {rest}.")

    def config_of(self, whose: Whose) -> TrainConfig:
        """Returns the config of one arm. A control goes to its end."""
        own: dict[str, Any] = {
            "seed": whose.seed,
            "eval_seed": self.config.measuring_seed,
            "n_seeds": 1,
            "controls": (),
        }
        if whose.number > 0:  # whether the reward is flat, the first arm has found
            own["allow_flat_reward"] = True
        if whose.is_control:
            own["early_stop"] = False
        return self.config.model_copy(update=own)

    def folder_of(self, whose: Whose) -> Path:
        """Returns where an arm's own states and checkpoints lie."""
        return states.arm_folder(self.given.run_dir, whose.number)

    def save(self, whose: Whose, folder: Path) -> None:
        """Saves the job's state when an arm has saved its own; then drops what no state needs any more."""
        run_dir, progress = self.given.run_dir, self.progress
        whole = {
            other.number: state_folder(self.folder_of(other), progress.arms[other.number].step)
            for other in self.racing
            if other.number in progress.arms and not self._is_over(other)
        }
        whole[whose.number] = folder
        self.recorder.state(progress.step, states.save(run_dir, progress, whole, self._belongs_to))
        states.prune(run_dir, progress.step)
        for other in self.begun:
            if other.number not in whole:
                self.drop(other, states.steps_needed(run_dir, other.number))

    def drop(self, whose: Whose, needed: Collection[int]) -> None:
        """Removes an arm's checkpoints but those of some steps of its own, and tells each before it goes."""
        for step in states.checkpoint_steps(self.given.run_dir, whose.number):
            if step not in needed:
                if step > 0:
                    self.recorder.dropped(self.progress.segments.of(whose.number, step))
                states.remove_checkpoint(self.given.run_dir, whose.number, step)

    def _is_over(self, whose: Whose) -> bool:
        """Whether a seed will not be trained any more, so that its weights are not needed."""
        progress = self.progress.arms[whose.number]
        has_ended = progress.step >= self.total or progress.ended is not None
        return whose.number not in self.training and (has_ended or whose.number in self.progress.failed)

    def _arm(self, whose: Whose, until: int) -> Arm:
        others = [progress for number, progress in self.progress.arms.items() if number != whose.number]
        return Arm(
            until=until,
            is_control=whose.is_control,
            is_alone=False,
            base=self._base(whose),
            looks=() if whose.is_control else tuple(self._looks_before(whose)),
            planned_looks=self.config.planned_looks(len(self.given.train_rows)),
            others=lambda _own: self.others(whose.number),
            spent_before=_spent_before(others),
        )

    def _looks_before(self, whose: Whose) -> list[Look]:
        """Returns the other seeds' looks of the rungs that are over.

        Those of the rung under way are left out, so that it makes no difference who trains first.
        """
        over = len(self.progress.went_on)
        end = self.plan[over - 1].end if over else 0
        return [
            look
            for other in self.begun
            if other != whose
            for look in outcome.job_looks(
                self.progress,
                other.number,
                [look for look in self.progress.arms[other.number].looks if look.step <= end],
            )
        ]

    def _base(self, whose: Whose) -> Base | None:
        """Returns what the first arm has found of the base, for the others."""
        if whose.number == 0:
            return None
        first = self.progress.arms[0]
        folder = checkpoint_folder(self.folder_of(whose), 0)
        checkpoint = next(one for one in first.kept if one.step == 0)
        return Base(
            first.looks[0], tuple(first.gold[:1]), replace(checkpoint, folder=folder), first.base_answers
        )

    def _take_base(self, whose: Whose) -> None:
        """Gives a seed that begins the base's checkpoint."""
        base = None if whose.is_control or not self.given.world.is_main else self._base(whose)
        if base is not None and not base.checkpoint.folder.exists():
            source = next(one.folder for one in self.progress.arms[0].kept if one.step == 0)
            states.link_folder(source, base.checkpoint.folder)
        self.given.world.wait()


def _spent_before(others: Sequence[Progress]) -> dict[str, float]:
    """Returns the most that had been spent of each budget when one of these arms paused."""
    found: dict[str, float] = {}
    for progress in others:
        for name, spent in progress.spent_before.items():
            found[name] = max(spent, found.get(name, 0.0))
    return found
