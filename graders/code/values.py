"""Compares a value that a program computed with the one that a test expects, on this side."""

from __future__ import annotations

import math
from collections import deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

from graders.sandbox.transport import Opaque

_NO_MORE_THAN_NOISE = 1e-12
"""An expected number below this is a zero that was computed with floats: 0.1 + 0.2 - 0.3 is 5.6e-17."""


def same(expected: Any, got: Any, tolerance: float, *, is_json: bool) -> bool:
    """Tells whether two values are equal as Python compares, numbers that are not whole within a tolerance.

    With `is_json` the expected value came from JSON, which knows neither tuples nor keys that are no text.
    """
    if isinstance(got, Opaque):
        return False
    if _is_number(expected) and _is_number(got):
        return _same_number(expected, got, tolerance)
    sequences = (list, tuple, deque) if is_json else (type(expected),)
    if isinstance(expected, list | tuple):
        return (
            isinstance(got, sequences)
            and len(expected) == len(got)
            and all(
                same(one, other, tolerance, is_json=is_json) for one, other in zip(expected, got, strict=True)
            )
        )
    if isinstance(expected, dict):
        return isinstance(got, dict) and _same_dict(expected, got, tolerance, is_json)
    return bool(expected == got)


def _same_dict(expected: dict[Any, Any], got: dict[Any, Any], tolerance: float, is_json: bool) -> bool:
    if is_json:
        try:
            got = {key if isinstance(key, str) else str(key): value for key, value in got.items()}
        except ValueError:  # a key of more digits than Python writes
            return False
    return expected.keys() == got.keys() and all(
        same(value, got[key], tolerance, is_json=is_json) for key, value in expected.items()
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex | Fraction | Decimal)


def _same_number(expected: Any, got: Any, tolerance: float) -> bool:
    try:
        if expected == got:
            return True
        if isinstance(expected, int) and isinstance(got, int):
            return False
        if isinstance(expected, complex) or isinstance(got, complex):
            return bool(abs(expected - got) <= tolerance * max(abs(expected), _NO_MORE_THAN_NOISE))
        return is_close(float(expected), float(got), tolerance)
    except (OverflowError, ArithmeticError, ValueError, TypeError):
        return False


def is_close(expected: float, got: float, tolerance: float) -> bool:
    """Tells whether a number is near enough to the expected one: relatively, and to zero absolutely."""
    if math.isclose(expected, got, rel_tol=tolerance) or (math.isnan(expected) and math.isnan(got)):
        return True
    if expected == 0:
        return abs(got) <= tolerance
    return got == 0 and abs(expected) <= min(tolerance, _NO_MORE_THAN_NOISE)
