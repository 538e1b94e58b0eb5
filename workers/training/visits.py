"""Which prompts a step visits: those that teach something in every epoch, the others less and less often.

A prompt whose completions all had the same reward teaches nothing. It is left out of epochs until it may have
changed: after 1, 2, 4, 8, 16 and then every 20 epochs, as long as each visit finds the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

LONGEST_WAIT = 20
"""Most epochs between two visits of a prompt. Promised by docs/trust.md, not measured."""


class Visit(NamedTuple):
    """What one visit has found of a prompt.

    Attributes:
        row: the prompt's row.
        is_flat: at least two completions were graded, and all that were have the same reward.
        is_solved: that reward is the highest that the grader can give.
    """

    row: int
    is_flat: bool
    is_solved: bool


@dataclass
class Visits:
    """When each prompt was visited, and when it is due again. A part of the training state.

    Attributes:
        epochs: of each row's last visit, from 1; 0 for a row that had none.
        waits: epochs from there to its next visit; 0 for a row whose last visit was not flat.
        solved: whether the last visit found nothing but the highest reward.
        have_differed: whether some prompt's completions have had different rewards. Before that nothing is
            left out of a run that fails where none ever do: it shall find out soon.
    """

    epochs: list[int] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)
    solved: list[bool] = field(default_factory=list)
    have_differed: bool = False

    def of(self, n_rows: int) -> Visits:
        """Returns itself, with a place for each row; a state of before has none."""
        for places, empty in ((self.epochs, 0), (self.waits, 0), (self.solved, False)):
            places += [empty] * (n_rows - len(places))
        return self

    def is_due(self, row: int, epoch: int) -> bool:
        """Whether an epoch visits a row."""
        return self.waits[row] <= 1 or self.epochs[row] + self.waits[row] <= epoch

    def due(self, batch: Sequence[int], epoch: int) -> list[int]:
        """Returns the rows of a step's batch that the step visits: of a batch with nothing due the one that
        has waited longest.
        """
        found = [row for row in batch if self.is_due(row, epoch)]
        return found or [min(batch, key=lambda row: self.epochs[row])]

    def note(self, epoch: int, visits: Sequence[Visit]) -> None:
        """Takes in what a step has found."""
        for row, is_flat, is_solved in visits:
            self.epochs[row] = epoch
            self.waits[row] = next_wait(self.waits[row]) if is_flat else 0
            self.solved[row] = is_solved

    @property
    def is_all_solved(self) -> bool:
        """Whether each row's last visit found nothing but the highest reward."""
        return bool(self.solved) and all(self.solved)


def next_wait(wait: int) -> int:
    """Returns how many epochs a prompt waits that was found flat again after `wait` epochs."""
    return min(max(1, 2 * wait), LONGEST_WAIT)
