"""Tells whether numbers that math-verify takes for equal agree relative to their size too.

The library looks at a fixed number of places, so that all tiny numbers are the same to it.
"""

from __future__ import annotations

from typing import Any

import sympy

from graders.math.values import SMALL

EXACT = 1e-9
"""Relative difference of numbers without a decimal point; evaluation to 15 digits loses less (our trial)."""


def are_near(one: Any, other: Any, decimals: int) -> bool:
    """Tells whether all numbers of two objects of sympy are near each other; others are not looked at."""
    ours, theirs = _numbers(one), _numbers(other)
    if not ours or len(ours) != len(theirs):
        return True
    return all(_is_near(a, b, decimals) for a, b in zip(ours, theirs, strict=True))


def are_both_unsolvable(one: Any, other: Any) -> bool:
    """Tells whether two equations have no solution for sympy: the library takes any such two for equal."""
    if not isinstance(one, sympy.Eq) or not isinstance(other, sympy.Eq) or one == other:
        return False
    try:
        is_same = sympy.simplify((one.lhs - one.rhs) - (other.lhs - other.rhs)) == 0
        return (
            not is_same
            and not sympy.solve(one, one.free_symbols)
            and not sympy.solve(other, other.free_symbols)
        )
    except Exception:
        return False  # the library compared them otherwise


def _numbers(expression: Any) -> list[Any]:
    """Returns the real numbers that an object is made of, by size in a set; none if one is no number."""
    if isinstance(expression, sympy.Eq):
        return _numbers(expression.rhs) if expression.lhs.is_symbol and expression.rhs.is_number else []
    if isinstance(expression, sympy.MatrixBase):
        parts = list(expression.flat())
    elif isinstance(expression, sympy.FiniteSet | sympy.Tuple):
        parts = list(expression.args)
    else:
        parts = [expression]
    numbers = [part.doit() for part in parts if getattr(part, "is_number", False)]
    if len(numbers) != len(parts) or not all(number.is_extended_real for number in numbers):
        return []
    return sorted(numbers) if isinstance(expression, sympy.FiniteSet) else numbers


def _is_near(one: Any, other: Any, decimals: int) -> bool:
    if one == other or not one.is_finite or not other.is_finite:
        return True
    if not one.is_nonzero or not other.is_nonzero:
        return True  # the library has compared it with 0
    ratio = abs(float((other / one).evalf(15)))
    size = abs(float(one.evalf(15)))
    is_rounded = one.has(sympy.Float) or other.has(sympy.Float)
    allowed = 0.5 * 10.0**-decimals * min(1 / size if size else SMALL, SMALL) if is_rounded else EXACT
    return min(abs(ratio - 1), abs(100 * ratio - 1), abs(ratio / 100 - 1)) <= max(allowed, EXACT)
