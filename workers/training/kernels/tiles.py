"""Products of small matrices inside other kernels, at the rate of the processor's multipliers.

The compiler does not keep a tile of sums in registers by itself, so the innermost loop is written in its own
language (LLVM IR), with vectors that every processor has or is given in two. Operands are flat arrays with
strides. Columns are computed `COLUMNS` at a time and rows `ROWS` at a time: results and what is read need
room for whole tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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

INDEX = ir.IntType(64)


class Vectors(NamedTuple):
    """Emits what is done with vectors of so many numbers."""

    lanes: int

    @property
    def kind(self) -> Any:
        """Returns the type."""
        return ir.VectorType(ir.FloatType(), self.lanes)

    @property
    def nothing(self) -> Any:
        """Returns zeros."""
        return ir.Constant(self.kind, [0.0] * self.lanes)

    def place(self, builder: Any, data: Any, at: Any) -> Any:
        """Emits a pointer to the vector that starts at a number."""
        return builder.bitcast(builder.gep(data, [at]), self.kind.as_pointer())

    def load(self, builder: Any, place: Any) -> Any:
        """Emits a load from where any number may start."""
        vector = builder.load(place)
        vector.align = 4
        return vector

    def same(self, builder: Any, number: Any) -> Any:
        """Emits a vector of one number."""
        anything = ir.Constant(self.kind, ir.Undefined)
        first = builder.insert_element(anything, number, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return builder.shuffle_vector(first, anything, zeros)

    def store(self, builder: Any, adds: Any, sums: Any, place: Any) -> None:
        """Emits that a variable of sums is written to a place, or added to what is there."""
        before = builder.select(adds, self.load(builder, place), self.nothing)
        builder.store(builder.fadd(builder.load(sums), before), place).align = 4


class Strided(NamedTuple):
    """Is an operand: numbers, where its rows or vectors start, and how far it is from term to term."""

    data: Any
    starts: Sequence[Any]
    step: Any


def tile(rows: int) -> Callable[..., None]:
    """Makes a tile of c = or += a b, from places on; steps lie between rows, and between terms of sums."""
    vectors = Vectors(LANES)

    @intrinsic
    def product(
        _: Any, adds: Any, c: Any, c_at: Any, c_row: Any,  # noqa: ARG001
        a: Any, a_at: Any, a_row: Any, a_term: Any, b: Any, b_at: Any, b_term: Any, terms: Any,  # noqa: ARG001
    ) -> Any:  # fmt: skip
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            c, a, b = (
                context.make_array(signature.args[i])(context, builder, args[i]).data for i in (1, 4, 8)
            )
            offsets = [index(j * LANES) for j in range(COLUMNS // LANES)]
            sums = sums_of_products(
                builder,
                vectors,
                Strided(
                    a, [builder.add(args[5], builder.mul(args[6], index(i))) for i in range(rows)], args[7]
                ),
                Strided(b, [builder.add(args[9], offset) for offset in offsets], args[10]),
                args[11],
            )
            for i in range(rows):
                row = builder.add(args[2], builder.mul(args[3], index(i)))
                for variable, offset in zip(sums[i], offsets, strict=True):
                    vectors.store(
                        builder, args[0], variable, vectors.place(builder, c, builder.add(row, offset))
                    )
            return context.get_dummy_value()

        numbers = [types.int64] * 3
        return types.void(types.boolean, c, *numbers[:2], a, *numbers, b, *numbers), emit

    found: Callable[..., None] = product
    return found


def sums_of_products(
    builder: Any, vectors: Vectors, rows: Strided, columns: Strided, terms: Any, ahead: Any = None
) -> list[list[Any]]:
    """Emits a tile's sums, in variables that become registers: for each row, one for each vector of columns.

    What lies so many numbers `ahead` of the columns that are read is asked of memory.
    """
    kind = ir.FunctionType(vectors.kind, [vectors.kind] * 3)
    multiply_add = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module, kind, f"llvm.fmuladd.v{vectors.lanes}f32"
    )
    sums = [[cgutils.alloca_once(builder, vectors.kind) for _ in columns.starts] for _ in rows.starts]  # type: ignore[no-untyped-call]
    for row in sums:
        for variable in row:
            builder.store(vectors.nothing, variable)
    with cgutils.for_range(builder, terms, intp=INDEX) as loop:
        term = builder.mul(loop.index, columns.step)
        places = [builder.add(start, term) for start in columns.starts]
        if ahead is not None:
            first_of_panels = places[:: COLUMNS // vectors.lanes]
            _ask_for(builder, columns.data, [builder.add(at, ahead) for at in first_of_panels])
        given = [vectors.load(builder, vectors.place(builder, columns.data, at)) for at in places]
        along = builder.mul(loop.index, rows.step)
        for start, row in zip(rows.starts, sums, strict=True):
            number = builder.load(builder.gep(rows.data, [builder.add(start, along)]))
            factor = vectors.same(builder, number)
            for variable, vector in zip(row, given, strict=True):
                builder.store(builder.call(multiply_add, [factor, vector, builder.load(variable)]), variable)
    return sums


def _ask_for(builder: Any, data: Any, places: Sequence[Any]) -> None:
    """Emits that memory is brought into the cache; it need not be ours."""
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    prefetch = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module, kind, "llvm.prefetch.p0"
    )
    read, near, of_data = word(0), word(3), word(1)
    for at in places:
        builder.call(prefetch, [builder.bitcast(builder.gep(data, [at]), byte), read, near, of_data])


def index(number: int) -> Any:
    """Returns a constant."""
    return ir.Constant(INDEX, number)


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
