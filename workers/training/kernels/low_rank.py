"""Low-rank adapters beside the products of a decode step: each row has its own, or none.

Rows of one adapter lie beside each other. What is added to a row costs in proportion to its adapter's rank,
and is the same to the bit whatever rows are beside it. Shapes as in `kernels.decode`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.training.kernels import compiled_over_given
from workers.training.kernels.panels import ADDED, IN_CACHE, PANEL, START, WRITTEN, Made, Matrix, multiply

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

QUERY, KEY, VALUE, OUT, GATE, UP, DOWN = range(7)
"""The linear layers of a decoder layer, as they stand in `Adapters.places`."""


class Adapters(NamedTuple):
    """Holds adapters for a decode step.

    Attributes:
        numbers: all their matrices in panels: the lower (ranks / 16, inputs, 16), the upper
            (outputs / 16, rank, 16) times the scale.
        places: (adapters, L, 7, 3): where the lower and the upper start, and the rank; 0 without one.
        of_slot: (B,) which adapter each slot has, -1 for none.
        widest: the highest rank, rounded up to whole panels.
    """

    numbers: Floats
    places: Ints
    of_slot: Ints
    widest: np.int64


@compiled_over_given
def add_low_rank(
    adapters: Adapters,
    slots: Ints,
    layer: int,
    linear: int,
    sizes: tuple[int, int],
    x: Matrix,
    out: Made,
    lower: Floats,
) -> None:
    """Adds up @ down @ x to each row whose adapter has this linear layer.

    Args:
        sizes: inputs and outputs.
        x, out: rows as they stand in `slots`; `out` has room for whole panels.
        lower: scratch, (B, widest).
    """
    inputs, outputs = sizes
    width, first = lower.shape[1], 0
    given = lower.reshape(-1)
    while first < len(slots) and len(adapters.places) > 0:
        number = adapters.of_slot[slots[first]]
        last = first + 1
        while last < len(slots) and adapters.of_slot[slots[last]] == number:
            last += 1
        if number >= 0 and adapters.places[number, layer, linear, 2] > 0:
            down, up, rank = adapters.places[number, layer, linear]
            n, (a, a_at, a_step), (c, c_at, c_step, c_panel) = last - first, x, out
            panels, made = (adapters.numbers, down, inputs * PANEL), (given, START, width, PANEL)
            blocks = (rank + PANEL - 1) // PANEL
            multiply(n, inputs, (a, a_at + first * a_step, a_step), panels, blocks, made, WRITTEN, IN_CACHE)
            panels, total = (adapters.numbers, up, rank * PANEL), (c, c_at + first * c_step, c_step, c_panel)
            blocks = (outputs + PANEL - 1) // PANEL
            multiply(n, rank, (given, START, width), panels, blocks, total, ADDED, IN_CACHE)
        first = last
