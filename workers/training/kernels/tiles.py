"""Products of small matrices inside other kernels, at the rate of the processor's multipliers.

The compiler does not keep a tile of sums in registers by itself, so the innermost loop is written in its own
language (LLVM IR), with vectors that every processor has or is given in two. Operands are flat arrays with
strides. Columns are computed `COLUMNS` at a time and rows `ROWS` at a time: results and what is read need
room for whole tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from workers.training.kernels import compiled

LANES = 8
"""Numbers in a vector: 256 bits. Chosen, not measured: a processor with shorter vectors is given them in
two.
"""
ROWS, COLUMNS = 4, 2 * LANES
"""Rows and columns of a tile: 8 vectors of sums hide the latency of two multipliers, and fit in 16
registers with operands, as do the 12 of 6 rows. Measured: 90 GFLOP/s where MKL reaches 80 to 89
(docs/benchmarks.md).
"""

Flat = NDArray[np.float32]

_INDEX = ir.IntType(64)
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_ANY = ir.Constant(_VECTOR, ir.Undefined)
_NOTHING = ir.Constant(_VECTOR, [0.0] * LANES)
_ZEROS = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)


def tile(rows: int) -> Callable[..., None]:
    """Makes a tile of c = or += a b, from places on; steps lie between rows, and between terms of sums."""

    @intrinsic
    def product(
        _: Any, adds: Any, c: Any, c_at: Any, c_row: Any,  # noqa: ARG001
        a: Any, a_at: Any, a_row: Any, a_term: Any, b: Any, b_at: Any, b_term: Any, terms: Any,  # noqa: ARG001
    ) -> Any:  # fmt: skip
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            c, a, b = (
                context.make_array(signature.args[i])(context, builder, args[i]).data for i in (1, 4, 8)
            )
            sums = _sums(builder, rows, a, b, *args[5:8], *args[9:12])
            for i in range(rows):
                row = builder.add(args[2], builder.mul(args[3], _index(i)))
                for j in range(COLUMNS // LANES):
                    place = _place(builder, c, builder.add(row, _index(j * LANES)))
                    before = builder.select(args[0], _load(builder, place), _NOTHING)
                    builder.store(builder.fadd(builder.load(sums[i][j]), before), place).align = 4
            return context.get_dummy_value()

        numbers = [types.int64] * 3
        return types.void(types.boolean, c, *numbers[:2], a, *numbers, b, *numbers), emit

    found: Callable[..., None] = product
    return found


def _sums(
    builder: Any,
    rows: int,
    a: Any,
    b: Any,
    a_at: Any,
    a_row: Any,
    a_term: Any,
    b_at: Any,
    b_term: Any,
    terms: Any,
) -> list[list[Any]]:
    """Emits the tile's sums of products, in variables that become registers."""
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    multiply_add = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module, kind, f"llvm.fmuladd.v{LANES}f32"
    )
    sums = [[builder.alloca(_VECTOR) for _ in range(COLUMNS // LANES)] for _ in range(rows)]
    for row in sums:
        for variable in row:
            builder.store(_NOTHING, variable)
    starts = [builder.add(a_at, builder.mul(a_row, _index(i))) for i in range(rows)]
    with cgutils.for_range(builder, terms, intp=_INDEX) as loop:
        at = builder.add(b_at, builder.mul(loop.index, b_term))
        vectors = [
            _load(builder, _place(builder, b, builder.add(at, _index(j * LANES))))
            for j in range(len(sums[0]))
        ]
        along = builder.mul(loop.index, a_term)
        for start, row in zip(starts, sums, strict=True):
            number = builder.load(builder.gep(a, [builder.add(start, along)]))
            first = builder.insert_element(_ANY, number, ir.Constant(ir.IntType(32), 0))
            factor = builder.shuffle_vector(first, _ANY, _ZEROS)
            for variable, vector in zip(row, vectors, strict=True):
                builder.store(builder.call(multiply_add, [factor, vector, builder.load(variable)]), variable)
    return sums


def _index(number: int) -> Any:
    return ir.Constant(_INDEX, number)


def _place(builder: Any, data: Any, at: Any) -> Any:
    return builder.bitcast(builder.gep(data, [at]), _VECTOR.as_pointer())


def _load(builder: Any, place: Any) -> Any:
    vector = builder.load(place)
    vector.align = 4
    return vector


_tile = tile(ROWS)


@compiled
def multiply(
    c: Flat, c_step: int, a: Flat, a_step: int, b: Flat, b_at: int, b_step: int, m: int, n: int, terms: int
) -> None:
    """Computes c (m, n) = a (m, terms) b (terms, n), the latter from `b_at` on."""
    for j in range(0, n, COLUMNS):
        for i in range(0, m, ROWS):
            _tile(False, c, i * c_step + j, c_step, a, i * a_step, a_step, 1, b, b_at + j, b_step, terms)


@compiled
def add_product(
    c: Flat, c_at: int, c_step: int, a: Flat, a_row: int, a_term: int, b: Flat, b_at: int, b_step: int,
    m: int, n: int, terms: int,
) -> None:  # fmt: skip
    """Computes c (m, n), from `c_at` on, += a (m, terms) b (terms, n), the latter from `b_at` on.

    `a` has steps for its rows and for its terms: it may lie transposed.
    """
    for j in range(0, n, COLUMNS):
        for i in range(0, m, ROWS):
            at = c_at + i * c_step + j
            _tile(True, c, at, c_step, a, i * a_row, a_row, a_term, b, b_at + j, b_step, terms)
