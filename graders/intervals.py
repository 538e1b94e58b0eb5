"""Bounds what a formula can give when its operands lie in intervals: interval arithmetic over its tree.

The bounds hold for every value that the formula has; they need not be reached, since an operand that stands
there twice is taken for two (`a - a` over [0, 1] is [-1, 1]). Where a formula has no finite value, such as
`log(0)`, grading fails, and no bound speaks of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from graders.formula import Name, Node, Number, Operation


class Interval(NamedTuple):
    """Holds the least and the largest of some numbers; infinite where there is no bound."""

    low: float
    high: float

    @classmethod
    def stated(cls, bounds: Sequence[float] | None) -> Interval:
        """Returns the interval that somebody has stated; one without bounds where nobody has."""
        return UNBOUNDED if bounds is None else cls(*bounds)

    def with_zero(self) -> Interval:
        """Returns the smallest interval that holds this one and 0."""
        return self.with_number(0.0)

    def with_number(self, number: float) -> Interval:
        """Returns the smallest interval that holds this one and a number."""
        return Interval(min(self.low, number), max(self.high, number))

    @property
    def is_bounded(self) -> bool:
        """Tells whether both ends are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)


UNBOUNDED = Interval(-math.inf, math.inf)


def bounds_of(formula: Node, ranges: Mapping[str, Interval]) -> Interval:
    """Returns what the values of a formula lie in; a name without a range may be anything."""
    match formula:
        case Number(value):
            return Interval(value, value)
        case Name(name):
            return ranges.get(name, UNBOUNDED)
        case Operation(symbol, operands):
            return _applied(symbol, [bounds_of(operand, ranges) for operand in operands])


def _applied(symbol: str, operands: Sequence[Interval]) -> Interval:
    match symbol, operands:
        case "-", [operand]:
            found = Interval(-operand.high, -operand.low)
        case "+", [operand]:
            found = operand
        case _:
            found = _OPERATIONS[symbol](*operands)
    is_sound = found.low <= found.high  # nan, of inf - inf, is not; nor is what has no value at all
    return found if is_sound else UNBOUNDED


def _sum(left: Interval, right: Interval) -> Interval:
    return Interval(left.low + right.low, left.high + right.high)


def _difference(left: Interval, right: Interval) -> Interval:
    return Interval(left.low - right.high, left.high - right.low)


def _product(left: Interval, right: Interval) -> Interval:
    # 0 times a number without bound is 0: the number itself is finite
    corners = [0.0 if 0.0 in pair else pair[0] * pair[1] for pair in product(left, right)]
    return Interval(min(corners), max(corners))


def _quotient(left: Interval, right: Interval) -> Interval:
    return _product(left, _reciprocal(right))


def _reciprocal(divisor: Interval) -> Interval:
    """Returns the bounds of 1 over a divisor, which is not 0 itself."""
    if divisor.low < 0 < divisor.high or divisor == (0.0, 0.0):
        return UNBOUNDED
    low = -math.inf if divisor.high == 0 else 1 / divisor.high
    high = math.inf if divisor.low == 0 else 1 / divisor.low
    return Interval(low, high)


def _power(base: Interval, exponent: Interval) -> Interval:
    """Returns the bounds of a power; of a negative number only whole ones exist."""
    if base.low >= 0:
        return _power_of_positive(base, exponent)
    if exponent.low == exponent.high and math.isfinite(exponent.low):
        if exponent.low.is_integer():
            return _whole_power(base, exponent.low)
        return _power_of_positive(Interval(0.0, base.high), exponent) if base.high >= 0 else UNBOUNDED
    size = _power_of_positive(_absolute(base), exponent).high
    return Interval(-size, size)


def _power_of_positive(base: Interval, exponent: Interval) -> Interval:
    """Returns the bounds where no base is negative: each variable alone only rises or only falls."""
    corners = [_power_of(*pair) for pair in product(base, exponent)]
    return Interval(min(corners), max(corners))


def _whole_power(base: Interval, exponent: float) -> Interval:
    if exponent < 0:
        return _reciprocal(_whole_power(base, -exponent))
    if exponent % 2 == 0:
        return _power_of_positive(_absolute(base), Interval(exponent, exponent))
    return Interval(_power_of(base.low, exponent), _power_of(base.high, exponent))


def _power_of(base: float, exponent: float) -> float:
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.copysign(math.inf, base)  # of a negative base only odd powers come here
    except ValueError:  # 0 to a negative power
        return math.inf


def _absolute(operand: Interval) -> Interval:
    sizes = (abs(operand.low), abs(operand.high))
    return Interval(0.0 if operand.low <= 0 <= operand.high else min(sizes), max(sizes))


def _rising(function: Callable[[float], float], least: float = -math.inf) -> Callable[[Interval], Interval]:
    """Returns a function that only rises, over intervals. It has no value below `least`."""

    def over(operand: Interval) -> Interval:
        if operand.high < least:
            return UNBOUNDED
        return Interval(function(max(operand.low, least)), function(operand.high))

    return over


def _exp(number: float) -> float:
    try:
        return math.exp(number)
    except OverflowError:
        return math.inf


def _log(number: float) -> float:
    return -math.inf if number == 0 else math.log(number)


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    return lambda number: float(function(number)) if math.isfinite(number) else number


def _least(*operands: Interval) -> Interval:
    return Interval(min(one.low for one in operands), min(one.high for one in operands))


def _largest(*operands: Interval) -> Interval:
    return Interval(max(one.low for one in operands), max(one.high for one in operands))


_OPERATIONS: dict[str, Callable[..., Interval]] = {
    "+": _sum,
    "-": _difference,
    "*": _product,
    "/": _quotient,
    "^": _power,
    "abs": _absolute,
    "floor": _rising(_whole(math.floor)),
    "ceil": _rising(_whole(math.ceil)),
    "exp": _rising(_exp),
    "sqrt": _rising(math.sqrt, least=0.0),
    "log": _rising(_log, least=0.0),
    "min": _least,
    "max": _largest,
}
