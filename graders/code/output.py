"""Compares what a program printed with what it should have printed."""

from __future__ import annotations

import re
from itertools import zip_longest

from graders.code.values import is_close

_LONGEST_NUMBER = 400
"""Characters of a number that is compared as one: more than a float has with all its zeros."""
_WHOLE = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_AROUND = re.compile(r"([\[\](){},;:=])")
"""What may stand around numbers, as in `[0.5, 1]` or `x=0.5`."""


def same_output(expected: str, printed: str, tolerance: float = 1e-9) -> bool:
    """Tells whether the lines are the same, or the numbers in them, up to a tolerance if they are not whole.

    White space at the ends of lines and empty lines at the end are ignored.
    """
    wanted, got = ([line.strip() for line in text.strip().split("\n")] for text in (expected, printed))
    if wanted == got:
        return True
    if len(wanted) != len(got):
        return False
    return all(_same_line(one, other, tolerance) for one, other in zip(wanted, got, strict=True))


def _same_line(one: str, other: str, tolerance: float) -> bool:
    left, right = one.split(), other.split()
    if len(left) != len(right):
        return False
    return all(_same_word(a, b, tolerance) for a, b in zip(left, right, strict=True))


def _same_word(one: str, other: str, tolerance: float) -> bool:
    if one == other or _same_number(one, other, tolerance):
        return True
    if not (_AROUND.search(one) and _AROUND.search(other)):
        return False
    pieces = zip_longest(_AROUND.split(one), _AROUND.split(other))
    return all(a == b or (a and b and _same_number(a, b, tolerance)) for a, b in pieces)


def _same_number(one: str, other: str, tolerance: float) -> bool:
    """Tells whether two texts are the same number: whole ones exactly, whatever their size."""
    if max(len(one), len(other)) > _LONGEST_NUMBER or not (
        _NUMBER.fullmatch(one) and _NUMBER.fullmatch(other)
    ):
        return False
    if _WHOLE.fullmatch(one) and _WHOLE.fullmatch(other):
        return int(one) == int(other)
    return is_close(float(one), float(other), tolerance)
