"""Products of few rows with weights that are packed in panels of 16 columns.

The inner dimension is gone through once for up to 6 rows, so a panel is read in one stream, as fast as memory
gives it. Each number is summed term after term, hence to the same bits whatever rows stand beside it.

A matrix is told by (numbers, first, step): a flat array, where its first number is, and how far it is from
one row to the next; a panel, whose rows lie one behind the other, by (numbers, first).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workers.training.kernels import compiled
from workers.training.kernels.tiles import COLUMNS, tile

PANEL = COLUMNS
"""The columns of a panel: those of a tile."""

MOST_ROWS = 6
"""The most rows of a tile: its 12 vectors of sums fit in 16 registers with operands. Against MKL's
products: -25 % at 1 row, -45 to -65 % at 2 to 8 (docs/benchmarks.md).
"""
_one, _two, _three, _four, _five, _six = (tile(rows) for rows in range(1, MOST_ROWS + 1))

# Typed, since a function is compiled once more for each plain number that is handed to it.
START = np.int64(0)
WRITTEN, ADDED = np.bool_(False), np.bool_(True)

Offset = int | np.int64
Floats = NDArray[np.float32]
Matrix = tuple[Floats, Offset, Offset]
Panel = tuple[Floats, Offset]


@compiled
def multiply(rows: int, inner: int, x: Matrix, panel: Panel, out: Matrix, is_added: np.bool_) -> None:
    """Multiplies (rows, inner) by (inner, 16); writes to `out` or adds to it."""
    (a, a_at, a_step), (b, b_at), (c, c_at, c_step) = x, panel, out
    row = 0
    while row < rows:
        blocks = (rows - row + MOST_ROWS - 1) // MOST_ROWS
        n = (rows - row + blocks - 1) // blocks
        at, to = a_at + row * a_step, c_at + row * c_step
        if n == 6:
            _six(is_added, c, to, c_step, a, at, a_step, 1, b, b_at, PANEL, inner)
        elif n == 5:
            _five(is_added, c, to, c_step, a, at, a_step, 1, b, b_at, PANEL, inner)
        elif n == 4:
            _four(is_added, c, to, c_step, a, at, a_step, 1, b, b_at, PANEL, inner)
        elif n == 3:
            _three(is_added, c, to, c_step, a, at, a_step, 1, b, b_at, PANEL, inner)
        elif n == 2:
            _two(is_added, c, to, c_step, a, at, a_step, 1, b, b_at, PANEL, inner)
        else:
            _one(is_added, c, to, c_step, a, at, a_step, 1, b, b_at, PANEL, inner)
        row += n


@compiled
def pack(weight: Floats, first: int, panels: Floats) -> None:
    """Writes (outputs, inputs) into the columns from `first` on of (panels, inputs or more, 16)."""
    outputs, inputs = weight.shape
    for row in range(outputs):
        panel, column = panels[(first + row) // PANEL], (first + row) % PANEL
        for i in range(inputs):
            panel[i, column] = weight[row, i]
