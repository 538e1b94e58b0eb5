"""Tells a job's recorder what one arm does, in the job's numbering."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from methods import metrics as names
from workers.training.base.recorder import Phase, Recorder
from workers.training.base.types import Action, Checkpoint, Group, Split
from workers.training.metrics import total_usage_metrics
from workers.training.trust.arm import Totals


class Whose(NamedTuple):
    """Names an arm: its number in the job, its seed, and whether its grades are permuted."""

    number: int
    seed: int
    is_control: bool

    def __str__(self) -> str:
        return "Control random_reward" if self.is_control else f"Seed {self.seed}"


class ArmRecorder:
    """Wraps the recorder of a job. What was told of step 0 by the first arm is told once."""

    def __init__(
        self,
        told: Recorder,
        whose: Whose,
        place: Callable[[int], int],
        others: Callable[[], Totals],
        publish: Callable[[Path], None],
    ) -> None:
        """Steps are mapped by `place`; `others` tells what other arms have spent; `publish` takes a state."""
        self._told = told
        self._whose = whose
        self._place = place
        self._others = others
        self._publish = publish

    def _is_known(self, step: int) -> bool:
        return step == 0 and self._whose.number > 0

    def phase(self, phase: Phase) -> None:
        """Tells it."""
        self._told.phase(phase)

    def metrics(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        """Tells the numbers of a step, with those that count since the job began."""
        if self._is_known(step):
            return
        whose = {names.ARM_SEED: float(self._whose.seed), names.ARM_STEP: float(step)}
        if self._whose.is_control:
            whose[names.ARM_IS_CONTROL] = 1.0
        totals, others = dict(values), self._others()
        for name, more in (
            (names.TRAINED_TOKENS, float(others.trained_tokens)),
            (names.TIME_TOTAL, others.seconds),
        ):
            totals[name] = totals.get(name, 0.0) + more
        for name, count in total_usage_metrics(others.usage).items():
            totals[name] = totals.get(name, 0.0) + count
        self._told.metrics(self._place(step), epoch, totals | whose)

    def rollouts(self, split: Split, step: int, epoch: int, groups: Sequence[Group]) -> None:
        """Tells the completions of a step; a control's own are no training of the job's."""
        if split == "train" and self._whose.is_control:
            split = "control"
        self._told.rollouts(split, self._place(step), epoch, groups)

    def checkpoint(self, saved: Checkpoint) -> None:
        """Tells a checkpoint, with the seed and the step of its own."""
        self._told.checkpoint(self._placed(saved))

    def snapshot(self, saved: Checkpoint) -> None:
        """Tells a snapshot in the same way."""
        self._told.snapshot(self._placed(saved))

    def dropped(self, step: int) -> None:
        """Tells that a checkpoint is gone; the base's is everybody's."""
        if step > 0:
            self._told.dropped(self._place(step))

    def state(self, step: int, folder: Path) -> None:
        """Gives the arm's state to be published with those of the others."""
        if not self._is_known(step):
            self._publish(folder)

    def pausing(self, message: str) -> None:
        """Tells whose run pauses."""
        self._told.pausing(self._named(message))

    def action(self, action: Action) -> None:
        """Tells whose guard has acted, at the job's step."""
        message = self._named(action.message)
        self._told.action(replace(action, step=self._place(action.step), message=message))

    def note(self, level: Literal["info", "warn"], message: str) -> None:
        """Tells whom a sentence is about; steps that it names are the run's own."""
        self._told.note(level, self._named(message))

    def _named(self, message: str) -> str:
        return f"{self._whose}: {message}"

    def _placed(self, saved: Checkpoint) -> Checkpoint:
        if saved.step == 0:
            return saved
        extra = {**saved.extra, "arm_seed": float(self._whose.seed), "arm_step": float(saved.step)}
        return replace(saved, step=self._place(saved.step), extra=extra)
