"""How many steps a batch decodes in one call: several while no row needs anything from the host between."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from workers.training.base.randomness import uniforms

if TYPE_CHECKING:
    from workers.serving.choosing import Table
    from workers.serving.tickets import Row
    from workers.training.kernels.decode_ahead import Draws

AHEAD_SECONDS = 0.01
"""How long a call may take: so long wait those who join meanwhile, and every text. Chosen: a third of what a
piece of somebody's prompt may take.
"""
MOST_AHEAD = 64
"""The most steps of a call. Chosen: what a call costs beside its steps is by then hardly felt."""


class Ahead:
    """Knows the rows of a batch, and how long their steps take."""

    def __init__(self, vocabulary: int, end_ids: Collection[int]) -> None:
        self._is_end = np.zeros(vocabulary, np.bool_)
        self._is_end[[token for token in end_ids if token < vocabulary]] = True
        self._rows = 0
        self._needs_host = True
        self._step_seconds = AHEAD_SECONDS
        self._bias_from = np.zeros(1, np.int64)
        self._bias_ids, self._bias_values = np.zeros(0, np.int64), np.zeros(0, np.float32)

    def take(self, rows: Sequence[Row], table: Table) -> None:
        """Takes other rows. What more of them than before need is not known until they were timed."""
        if len(rows) > self._rows:
            self._step_seconds = AHEAD_SECONDS
        self._rows = len(rows)
        self._needs_host = bool(table.needs_host[: len(rows)].any())
        biases = [row.ticket.bias for row in rows]
        given = [(ids.numpy(), values.numpy()) for ids, values in filter(None, biases)]
        sizes = [0 if bias is None else len(bias[0]) for bias in biases]
        self._bias_from = np.array([0, *sizes], np.int64).cumsum()
        self._bias_ids = np.concatenate([np.zeros(0, np.int64), *(ids for ids, _ in given)])
        values = [np.zeros(0, np.float32), *(values for _, values in given)]
        self._bias_values = np.concatenate(values).astype(np.float32)

    def steps(self, table: Table) -> int:
        """Returns how many steps the rows may do in one call: 1 if one of them needs the host."""
        if self._needs_host:
            return 1
        rest = table.limits[: self._rows] - table.counts[: self._rows]
        return max(1, min(int(rest.min()), int(AHEAD_SECONDS / self._step_seconds), MOST_AHEAD))

    def note(self, steps: int, seconds: float) -> None:
        """Takes note of how long steps took."""
        self._step_seconds = max(seconds / steps, AHEAD_SECONDS / MOST_AHEAD)

    def draws(self, table: Table, steps: int) -> Draws:
        """Returns what the next tokens of the rows are drawn by: the numbers of single steps."""
        from workers.training.kernels.decode_ahead import Draws

        n = self._rows
        counts = table.counts[:n] + np.arange(steps)[:, None]
        return Draws(
            uniforms=uniforms(table.seeds[:n], counts),
            temperatures=table.temperatures[:n],
            bias_from=self._bias_from,
            bias_ids=self._bias_ids,
            bias_values=self._bias_values,
            is_end=self._is_end,
            tokens=np.empty((steps, n), np.int64),
            logprobs=np.empty((steps, n), np.float32),
        )
