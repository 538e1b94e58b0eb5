"""Where a run tells what it did. The engine never asks who is listening."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from workers.training.base.types import Action, Checkpoint, Group, Split

Phase = Literal["loading", "sampling", "grading", "updating", "validating", "saving"]


class Recorder(Protocol):
    """Is told of everything in order. After a resume, steps since the last saved state are told again."""

    def phase(self, phase: Phase) -> None:
        """Takes note that the run is alive and has entered this phase."""

    def metrics(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        """Takes the numbers of one finished step (`methods/metrics.py`).

        Step 0 holds the base's validation.
        """

    def rollouts(self, split: Split, step: int, epoch: int, groups: Sequence[Group]) -> None:
        """Takes the graded completions of one step."""

    def checkpoint(self, saved: Checkpoint) -> None:
        """Takes a checkpoint whose folder is complete.

        It may copy the folder away; the engine keeps the best.
        """

    def snapshot(self, saved: Checkpoint) -> None:
        """Takes a checkpoint of a run that pauses: of the state just saved, and none of the best.

        Its folder goes when the run goes on.
        """

    def dropped(self, step: int) -> None:
        """Takes note that the folder of a step's checkpoint goes.

        No saved state needs it, and it is not among the best. This may be told again after a resume.
        """

    def state(self, step: int, folder: Path) -> None:
        """Takes a complete training state that was saved.

        What only older states needed is dropped after this.
        """

    def pausing(self, message: str) -> None:
        """Takes note that the run pauses by itself before its next step, and why, as a sentence."""

    def action(self, action: Action) -> None:
        """Takes what the run did of its own accord, or would have done. At most one for a step."""

    def note(self, level: Literal["info", "warn"], message: str) -> None:
        """Takes a sentence for the person who follows the run."""
