"""How the steps of a job are numbered through all its arms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Segment(NamedTuple):
    """Says that an arm has trained without another in between.

    Attributes:
        arm: its number.
        first: the arm's own step after which it began.
        before: the job's step after which it began.
    """

    arm: int
    first: int
    before: int


class Segments:
    """Holds all of them, in order. The last one goes on."""

    def __init__(self, segments: Sequence[Segment] = ()) -> None:
        self.all = list(segments)

    def begin(self, arm: int, first: int, now: int) -> None:
        """Lets an arm go on from its own step `first`, at the job's step `now`, unless it is its turn."""
        if self.all and self.all[-1].arm == arm:
            return
        self.all.append(Segment(arm, first, now))

    def of(self, arm: int, step: int) -> int:
        """Returns the job's step that an arm's own one is. Step 0 of every arm is the base's."""
        if step == 0:
            return 0
        *_, found = (segment for segment in self.all if segment.arm == arm and segment.first < step)
        return found.before + step - found.first

    def lengths(self, now: int) -> Iterator[tuple[int, int]]:
        """Yields the arm and the number of steps of each segment, at the job's step `now`."""
        ends = [*(segment.before for segment in self.all[1:]), now]
        for segment, end in zip(self.all, ends, strict=True):
            yield segment.arm, end - segment.before
