"""Holds the values that are compared without a library: exact numbers, times of day and lists of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from graders.math.units import Unit

MAX_MEMBERS = 64
"""Members of a list that is compared here, each with each."""

SMALL = 100
"""Numbers below 1/100 must agree relative to their size: the tolerance shrinks with them from there."""


@dataclass(frozen=True)
class Number:
    """Holds an exact number, and how it was written.

    Attributes:
        is_decimal: whether it was written with a decimal point, so that it may have been rounded.
        unit: what stands after it; None where nothing does, or words that are no unit.
        is_product: whether the unit is one letter right after the digits, which may be a variable.
    """

    value: Fraction
    is_decimal: bool = False
    is_percent: bool = False
    unit: Unit | None = None
    is_product: bool = False


@dataclass(frozen=True)
class Clock:
    """Holds a time of day in seconds; `half` is `a` or `p` where one is said."""

    seconds: int
    half: str = ""


Value = Number | Clock | tuple["Number | Clock", ...]


def same_value(reference: Value, answer: Value, decimals: int) -> bool:
    """Tells whether two values are the same; lists if each member is one of the other's, in any order."""
    if not isinstance(reference, tuple) and not isinstance(answer, tuple):
        return _same(reference, answer, decimals)
    ours, theirs = _members(reference), _members(answer)
    if len(ours) > MAX_MEMBERS or len(theirs) > MAX_MEMBERS:
        return sorted(ours, key=repr) == sorted(theirs, key=repr)
    pairs = [[_same(one, other, decimals) for other in theirs] for one in ours]
    return all(map(any, pairs)) and all(map(any, zip(*pairs, strict=True)))


def _members(value: Value) -> Sequence[Number | Clock]:
    return value if isinstance(value, tuple) else (value,)


def _same(one: Number | Clock, other: Number | Clock, decimals: int) -> bool:
    if isinstance(one, Clock) and isinstance(other, Clock):
        return _same_time(one, other)
    if isinstance(one, Clock) or isinstance(other, Clock):
        return False
    if one.is_product and other.unit is None:
        return False
    ratio: Fraction | None = Fraction(1)
    if one.unit is not None and other.unit is not None:
        ratio = other.unit.ratio_to(one.unit)
    if ratio is None:
        return False
    ours, theirs = one.value, other.value * ratio
    is_rounded = one.is_decimal or other.is_decimal or ratio != 1
    if one.is_percent == other.is_percent:
        return _near(ours, theirs, decimals, is_rounded)
    share, bare = (ours, theirs) if one.is_percent else (theirs, ours)
    return _near(share, bare, decimals, is_rounded) or _near(share / 100, bare, decimals, is_rounded)


def _near(one: Fraction, other: Fraction, decimals: int, is_rounded: bool) -> bool:
    """Compares whole numbers and fractions exactly, and decimals once rounded, by their size if small."""
    if one == other or not is_rounded:
        return one == other
    if one.denominator == other.denominator == 1:
        return False
    return abs(one - other) <= tolerance(decimals) * min(Fraction(1), SMALL * abs(one))


def tolerance(decimals: int) -> Fraction:
    """Returns half a unit of the last of so many decimal places."""
    return Fraction(1, 2 * 10**decimals)


def _same_time(one: Clock, other: Clock) -> bool:
    if one.half == other.half or (one.half and other.half):
        return one.seconds == other.seconds
    said, bare = (one, other) if one.half else (other, one)
    is_half_day = bare.seconds < 13 * 3600 and (bare.seconds - said.seconds) % (12 * 3600) == 0
    return is_half_day or bare.seconds == said.seconds
