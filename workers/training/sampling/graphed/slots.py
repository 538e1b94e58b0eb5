"""Which rows and prompts are in which slots of a GPU's sampler, on the host.

S slots of rows, n of prompts, B rows under way, all by the numbers of their completions in the call.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from methods.sizes.sampler import LEAST_ROWS, Shape
from workers.training.base.randomness import uniforms
from workers.training.sampling.decode_step import Ints, places
from workers.training.sampling.graphed.sampler import DRAWS_AHEAD, Places
from workers.training.sampling.graphed.shapes import LEAST_COLUMNS, Size, rung


class Move(NamedTuple):
    """Says which slots move to which free ones, (B,) each, and how many tokens the longest has."""

    sources: Ints
    targets: Ints
    width: int


class Slots:
    """Keeps what is where. A slot that is left stays empty in the midst of others until `close_up`."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.row = np.full(shape.slots, -1)
        """(S,) the row in each slot; -1 where it is free."""
        self.counts = np.zeros(shape.slots, np.int64)
        """(S,) tokens that each row was given, read on the host or not."""
        self._prompt = np.zeros(shape.slots, np.int64)
        self._numbered_from = np.zeros(shape.slots, np.int64)
        self._users = np.zeros(shape.groups, np.int64)
        self._lengths = np.ones(shape.groups, np.int64)
        self.has_changed = False
        """Whether the device must be told where rows stand."""
        self._lacks_numbers = False

    @property
    def active(self) -> Ints:
        """Returns the slots of rows under way, (B,)."""
        found: Ints = (self.row >= 0).nonzero()[0]
        return found

    @property
    def free_groups(self) -> int:
        """Counts the free slots of prompts."""
        return int((self._users == 0).sum())

    def start(self, rows: Ints, sizes: Ints, lengths: Ints) -> tuple[Ints, Ints]:
        """Gives slots to rows, (B,), of prompts with so many rows and tokens each; returns those of both."""
        prompts = (self._users == 0).nonzero()[0][: len(sizes)]
        slots = (self.row < 0).nonzero()[0][: len(rows)]
        self._users[prompts], self._lengths[prompts] = sizes, lengths
        self.row[slots], self.counts[slots] = rows, 1
        self._prompt[slots] = np.repeat(prompts, sizes)
        self.has_changed = self._lacks_numbers = True
        return slots, prompts

    def leave(self, slots: Ints) -> None:
        """Frees the slots of rows, (B,), and of prompts that have no other."""
        self.row[slots] = -1
        np.subtract.at(self._users, self._prompt[slots], 1)
        self._lengths[self._users == 0] = 1
        self.has_changed = True

    def size(self) -> Size:
        """Returns the size of the next step."""
        active = self.active
        last = max(int(active[-1]), int(self._users.nonzero()[0][-1]))  # it reads as many prompts as rows
        return Size(
            rung(last + 1, LEAST_ROWS, self.shape.slots),
            rung(int(self.counts[active].max()), LEAST_COLUMNS, self.shape.columns),
        )

    def close_up(self) -> tuple[Move | None, Move | None]:
        """Moves rows, and prompts, to lower slots where a smaller step then does; returns what has moved."""
        active = self.active
        rows = rung(len(active), LEAST_ROWS, self.shape.slots)
        if self.size().rows <= rows:
            return None, None
        moved = self._into_gaps(active, self.row < 0, rows)
        if moved is not None:
            for values in (self.row, self.counts, self._prompt):
                values[moved.targets] = values[moved.sources]
            self.row[moved.sources] = -1
            moved = moved._replace(width=int(self.counts[moved.targets].max()))
        prompts = self._into_gaps(self._users.nonzero()[0], self._users == 0, rows)
        if prompts is not None:
            new = np.arange(self.shape.groups)
            new[prompts.sources] = prompts.targets
            self._prompt = new[self._prompt]
            for values in (self._users, self._lengths):
                values[prompts.targets] = values[prompts.sources]
            self._users[prompts.sources], self._lengths[prompts.sources] = 0, 1
            prompts = prompts._replace(width=int(self._lengths[prompts.targets].max()))
        self.has_changed = self._lacks_numbers = True
        return moved, prompts

    def _into_gaps(self, used: Ints, is_free: NDArray[np.bool_], end: int) -> Move | None:
        sources = used[used >= end]
        if not len(sources):
            return None
        return Move(sources, is_free[:end].nonzero()[0][: len(sources)], 0)

    def places(self) -> Places:
        """Returns where rows stand, to be told to the device before the next step."""
        active, found = self.active, Places.idle(self.shape)
        counts, prompts = self.counts[active], self._prompt[active]
        source, place = places(prompts, self.shape.groups, self.shape.samples)
        found.positions[active] = self._lengths[prompts] + counts - 1
        found.columns[active] = counts - 1
        found.drawn[active] = counts - self._numbered_from[active]
        found.moving[active] = 1
        found.place[active] = place
        found.lengths[:] = self._lengths
        found.source[:] = active[source]
        self.has_changed = False
        return found

    def next_numbers(self, seeds: NDArray[np.uint64], written: Ints) -> NDArray[np.float32] | None:
        """Returns the random numbers of the next tokens of all rows, (B, DRAWS_AHEAD), if new ones are due.

        `seeds` and `written`, the tokens of earlier turns, are by row.
        """
        active = self.active
        counts = self.counts[active]
        if not self._lacks_numbers and (counts - self._numbered_from[active]).max() < DRAWS_AHEAD:
            return None
        self._numbered_from[active] = counts
        self.has_changed, self._lacks_numbers = True, False
        rows = self.row[active]
        first = written[rows] + counts
        ahead = first[:, None] + np.arange(DRAWS_AHEAD)
        numbers = uniforms(np.repeat(seeds[rows], DRAWS_AHEAD), ahead.reshape(-1))
        return numbers.reshape(len(rows), DRAWS_AHEAD)
