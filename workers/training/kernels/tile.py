"""The matrix product that the other kernels are made of: rows by a panel of 16 columns.

Up to 6 rows by 16 columns of the result stay in registers while the inner dimension is gone through once, so
weights packed in such panels are read in one stream, as fast as memory gives them. Each number is summed in
order, hence to the same bits whatever rows stand beside it.

A matrix is told by (numbers, first, step): a flat array, where its first number is, and how far it is from
one row to the next; a panel, whose rows lie one behind the other, by (numbers, first).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from workers.training.kernels import compiled

PANEL = 16
"""Columns of a panel."""

MOST_ROWS = 6
"""Rows whose results fit in the 16 registers of AVX2, beside what they are made of."""

# Typed, since a function is compiled once more for each plain number that is handed to it.
START = np.int64(0)
WRITTEN, ADDED = np.bool_(False), np.bool_(True)

Place = int | np.int64
Floats = NDArray[np.float32]
Matrix = tuple[Floats, Place, Place]
Panel = tuple[Floats, Place]

_FLOAT, _INT, _LANE = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, PANEL)


@compiled
def multiply(rows: int, inner: int, x: Matrix, panel: Panel, out: Matrix, is_added: np.bool_) -> None:
    """(rows, inner) by (inner, 16), written to `out` or added to it."""
    row = 0
    while row < rows:
        blocks = (rows - row + MOST_ROWS - 1) // MOST_ROWS
        n = (rows - row + blocks - 1) // blocks
        given, made = (x[0], x[1] + row * x[2], x[2]), (out[0], out[1] + row * out[2], out[2])
        if n == 6:
            _six(inner, given, panel, made, is_added)
        elif n == 5:
            _five(inner, given, panel, made, is_added)
        elif n == 4:
            _four(inner, given, panel, made, is_added)
        elif n == 3:
            _three(inner, given, panel, made, is_added)
        elif n == 2:
            _two(inner, given, panel, made, is_added)
        else:
            _one(inner, given, panel, made, is_added)
        row += n


@compiled
def pack(weight: Floats, scale: Floats, first: int, panels: Floats) -> None:
    """Write (outputs, inputs), each input times its scale, into the columns from `first` on of (panels,
    inputs or more, 16)."""
    outputs, inputs = weight.shape
    for row in range(outputs):
        panel, column = panels[(first + row) // PANEL], (first + row) % PANEL
        for i in range(inputs):
            panel[i, column] = weight[row, i] * scale[i]


def _tile(rows: int) -> Any:
    """The product of a fixed number of rows. Loops over arrays would keep the sums in memory."""

    def tile(_: Any, inner: Any, x: Any, panel: Any, out: Any, is_added: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, given: Sequence[Any]) -> Any:
            matrices = [
                _Matrix(context, builder, kind, value)
                for kind, value in zip(signature.args[1:4], given[1:4], strict=True)
            ]
            _emit(builder, rows, given[0], *matrices, is_added=given[4])
            return context.get_dummy_value()

        return types.none(inner, x, panel, out, is_added), emit

    return intrinsic(tile)


class _Matrix:
    """A matrix or panel of the code that is being made."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        numbers, first, *step = (builder.extract_value(value, i) for i in range(len(kind)))
        self._builder = builder
        data = context.make_array(kind[0])(context, builder, value=numbers).data
        self._start = builder.gep(data, [first])
        self._step = step[0] if step else _INT(PANEL)

    def row(self, number: ir.Value) -> ir.Value:
        """Where a row starts."""
        return self._builder.gep(self._start, [self._builder.mul(number, self._step)])


def _emit(
    builder: Any, rows: int, inner: Any, x: _Matrix, panel: _Matrix, out: _Matrix, *, is_added: Any
) -> None:
    """A loop over the inner dimension with the sums of all rows in registers; `inner` is at least 1."""
    x_rows, out_rows = ([matrix.row(_INT(row)) for row in range(rows)] for matrix in (x, out))
    out_rows = [builder.bitcast(row, _VECTOR.as_pointer()) for row in out_rows]
    zero = ir.Constant(_VECTOR, [0.0] * PANEL)
    before, loop, after = builder.block, *(builder.append_basic_block(name) for name in ("sum", "summed"))
    builder.branch(loop)
    builder.position_at_end(loop)
    i = builder.phi(_INT)
    sums = [builder.phi(_VECTOR) for _ in range(rows)]
    weights = builder.load(builder.bitcast(panel.row(i), _VECTOR.as_pointer()), align=4)
    more = [
        _plus(builder, sums[row], builder.load(builder.gep(x_rows[row], [i])), weights) for row in range(rows)
    ]
    following = builder.add(i, _INT(1))
    for phi, first, then in zip((i, *sums), (_INT(0), *[zero] * rows), (following, *more), strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(then, loop)
    builder.cbranch(builder.icmp_signed("<", following, inner), loop, after)
    builder.position_at_end(after)
    for row, found in zip(out_rows, more, strict=True):
        there = builder.select(is_added, builder.load(row, align=4), zero)
        builder.store(builder.fadd(found, there), row, align=4)


def _plus(builder: Any, sums: Any, factor: Any, weights: Any) -> Any:
    """`sums` + `factor` * `weights`."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    lanes = ir.Constant(ir.VectorType(_LANE, PANEL), [0] * PANEL)
    factors = builder.shuffle_vector(builder.insert_element(undefined, factor, _LANE(0)), undefined, lanes)
    return builder.fadd(sums, builder.fmul(factors, weights, flags=("contract",)), flags=("contract",))


_one, _two, _three, _four, _five, _six = (_tile(rows) for rows in range(1, MOST_ROWS + 1))
