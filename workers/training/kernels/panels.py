"""Products of few rows with weights that are packed in panels of 16 columns.

The inner dimension is gone through once for several rows, so a panel is read in one stream, as fast as memory
gives it. Each number is summed term after term, hence to the same bits whatever rows stand beside it, however
many numbers the processor's vectors have, and whichever tile is taken.

A matrix is told by (numbers, first, step): a flat array, where its first number is, and how far it is from
one row to the next. Panels, the rows of each of which lie one behind the other, and what is made of them, by
how far it is from one panel to the next as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from workers.training.kernels import compiled_over_given
from workers.training.kernels.tiles import COLUMNS, LANES, Strided, Vectors, index, sums_of_products

PANEL = COLUMNS
"""The columns of a panel: those of a tile."""

_HAS_512_BITS = bool(llvm.get_host_cpu_features().get("avx512f"))

VECTORS = Vectors(16 if _HAS_512_BITS else LANES)
"""With 512 bits where the processor has them. Measured on the products of 8 rows: 117 GFLOP/s with 256 bits,
265 with 512 (docs/benchmarks.md).
"""
MOST_ROWS, MOST_ROWS_OF_PAIRS = (8, 8) if _HAS_512_BITS else (6, 3)
"""The most rows of a tile of one panel, and of one of two: its sums fit in the 32 or 16 registers with
operands. Against MKL's products: -25 % at 1 row, -45 to -65 % at 2 to 8 (docs/benchmarks.md).
"""
AHEAD = 128 * PANEL
"""Numbers ahead of those read that memory is asked for: 8 KB. Measured on weights of 200 MB and 8 rows: 27
GB/s without, 33 at 2 KB, 35 at 4 KB, 37 at 8 KB, which is all that one row reads (docs/benchmarks.md).
"""

# Typed, since a function is compiled once more for each plain number that is handed to it.
START = np.int64(0)
WRITTEN, ADDED = np.bool_(False), np.bool_(True)

Reading = tuple[np.int64, np.bool_]
"""How panels are read: how many numbers ahead of those that are read memory is asked for, and whether two at
a time. Two have more sums, which hide the latency of the multipliers where rows are few; one is read faster
from memory than two.
"""
IN_PAIRS = np.bool_(True)
IN_CACHE, STREAMED = (START, IN_PAIRS), (np.int64(AHEAD), np.bool_(False))

Offset = int | np.int64
Floats = NDArray[np.float32]
Matrix = tuple[Floats, Offset, Offset]
Panels = tuple[Floats, Offset, Offset]
Made = tuple[Floats, Offset, Offset, Offset]


def _tiles(most_rows: int, panels: int) -> Callable[..., None]:
    """Makes the tiles of 1 to `most_rows` rows with so many panels side by side; a call chooses one."""

    @intrinsic
    def product(
        _: Any, rows: Any, adds: Any, c: Any, c_at: Any, c_row: Any, c_panel: Any,  # noqa: ARG001
        a: Any, a_at: Any, a_row: Any, b: Any, b_at: Any, b_panel: Any, ahead: Any, terms: Any,  # noqa: ARG001
    ) -> Any:  # fmt: skip
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            c, a, b = (
                context.make_array(signature.args[i])(context, builder, args[i]).data for i in (2, 6, 9)
            )
            offsets = [(j, k) for j in range(panels) for k in range(0, PANEL, VECTORS.lanes)]

            def starts(at: Any, step: Any) -> list[Any]:
                return [
                    builder.add(at, builder.add(builder.mul(step, index(j)), index(k))) for j, k in offsets
                ]

            def emit_tile(n: int) -> None:
                read = [builder.add(args[7], builder.mul(args[8], index(i))) for i in range(n)]
                weights = Strided(b, starts(args[10], args[11]), index(PANEL))
                sums = sums_of_products(
                    builder, VECTORS, Strided(a, read, index(1)), weights, args[13], args[12]
                )
                for i in range(n):
                    row = builder.add(args[3], builder.mul(args[4], index(i)))
                    for variable, at in zip(sums[i], starts(row, args[5]), strict=True):
                        VECTORS.store(builder, args[1], variable, VECTORS.place(builder, c, at))

            _choose(builder, args[0], most_rows, emit_tile)
            return context.get_dummy_value()

        n = types.int64
        return types.void(n, types.boolean, c, n, n, n, a, n, n, b, n, n, n, n), emit

    found: Callable[..., None] = product
    return found


def _choose(builder: Any, number: Any, most: int, emit: Callable[[int], None]) -> None:
    """Emits a case for each number from 1 to `most`."""
    after = builder.append_basic_block("after")
    choice = builder.switch(number, after)
    for n in range(1, most + 1):
        block = builder.append_basic_block(f"of_{n}")
        choice.add_case(ir.Constant(number.type, n), block)
        with builder.goto_block(block):
            emit(n)
            builder.branch(after)
    builder.position_at_end(after)


_single, _pair = _tiles(MOST_ROWS, 1), _tiles(MOST_ROWS_OF_PAIRS, 2)
_ALWAYS_PAIRS = MOST_ROWS_OF_PAIRS == MOST_ROWS


@compiled_over_given
def multiply(
    rows: int, inner: int, x: Matrix, panels: Panels, n: int, out: Made, is_added: np.bool_, reading: Reading
) -> None:
    """Multiplies (rows, inner) by n panels, (inner, 16) each; writes to `out` or adds to it."""
    (a, a_at, a_step), (b, b_at, b_panel), (c, c_at, c_step, c_panel) = x, panels, out
    ahead, in_pairs = reading
    pairs = in_pairs and (_ALWAYS_PAIRS or rows <= MOST_ROWS_OF_PAIRS)
    panel = 0
    while panel < n:
        paired = pairs and panel + 1 < n
        most = MOST_ROWS_OF_PAIRS if paired else MOST_ROWS
        row, b_from, c_from = 0, b_at + panel * b_panel, c_at + panel * c_panel
        while row < rows:
            blocks = (rows - row + most - 1) // most
            some = (rows - row + blocks - 1) // blocks
            at, to = a_at + row * a_step, c_from + row * c_step
            if paired:
                _pair(some, is_added, c, to, c_step, c_panel, a, at, a_step, b, b_from, b_panel, ahead, inner)
            else:
                _single(
                    some, is_added, c, to, c_step, c_panel, a, at, a_step, b, b_from, b_panel, ahead, inner
                )
            row += some
        panel += 2 if paired else 1


@compiled_over_given
def pack(weight: Floats, first: int, panels: Floats) -> None:
    """Writes (outputs, inputs) into the columns from `first` on of (panels, inputs or more, 16)."""
    outputs, inputs = weight.shape
    row = 0
    while row < outputs:
        panel, column = panels[(first + row) // PANEL], (first + row) % PANEL
        n = min(PANEL - column, outputs - row)
        for i in range(inputs):
            for j in range(n):
                panel[i, column + j] = weight[row + j, i]
        row += n
