"""How the steps of a job are numbered through all its arms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Segment(NamedTuple):
    """Says which of the job's numbers an arm's steps of one rung have, whether or not it makes all of them.

    Attributes:
        arm: its number.
        first: the arm's own step after which it begins.
        before: the job's number after which it begins.
        length: how many steps the rung plans for it.
    """

    arm: int
    first: int
    before: int
    length: int


class Segments:
    """Holds all of them, in order.

    Numbers follow from the plan, not from who trains when: they are the same in turn and side by side. Those
    of an arm that ends within its rung are left out.
    """

    def __init__(self, segments: Sequence[Segment] = ()) -> None:
        self.all = list(segments)

    def reserve(self, arm: int, first: int, until: int) -> None:
        """Gives an arm numbers for its own steps from after `first` to `until`, unless it has them."""
        if any(segment.arm == arm and segment.first + segment.length >= until for segment in self.all):
            return
        self.all.append(Segment(arm, first, self.end, until - first))

    @property
    def end(self) -> int:
        """Returns the last number that is given away."""
        return self.all[-1].before + self.all[-1].length if self.all else 0

    def of(self, arm: int, step: int) -> int:
        """Returns the job's number of an arm's own step. Step 0 of every arm is the base's."""
        if step == 0:
            return 0
        *_, found = (segment for segment in self.all if segment.arm == arm and segment.first < step)
        return found.before + step - found.first
