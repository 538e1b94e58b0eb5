"""Bounds how many digits an expression of sympy would need, before anything evaluates it.

A tower of powers is short to write and cannot be computed; the parser leaves it unevaluated, so that it can
be measured here in a walk over its tree.
"""

from __future__ import annotations

import re
from math import inf, log10

import sympy

MAX_DIGITS = 20_000
"""Digits of the largest number that is computed: sympy compares two such powers in 0.1 s (our trial)."""

MAX_FACTORS = 100_000
"""Terms of a written-out product that are multiplied."""

MAX_DEPTH, MAX_BRACES = 20, 100
"""Brackets within brackets that are parsed: its time grows with their square, 1 s for so many (our trial)."""

_AT_ONCE = re.compile(
    r"\\[dt]?binom\s*((?:\{[^{}]*\}|\\?\w)\s*(?:\{[^{}]*\}|\\?\w)|.*)|\\(?:operatorname\s*\{)?(?:gcd|lcm)\b(.*)",
    re.DOTALL,
)
_TOWER = re.compile(rf"(?:\^\s*\\?\w{{1,9}}\s*){{{MAX_DEPTH},}}")
_LARGE = re.compile(r"[0-9]{5}|!|\^\s*(?:\{[^{}]*(?:[0-9]{3}|\^)|\{?[0-9]{3})")


class TooLarge(Exception):
    """Says that an expression would need too many digits to be computed."""

    why = f"is larger than {MAX_DIGITS:,} digits can hold"


def is_too_deep_to_parse(latex: str) -> bool:
    """Tells whether brackets, signs of an absolute value or powers stand too deep in one another."""
    is_deep = _depth(latex, "([", ")]") + latex.count("|") // 2 > MAX_DEPTH
    return is_deep or _depth(latex, "{", "}") > MAX_BRACES or _TOWER.search(latex) is not None


def _depth(latex: str, opening: str, closing: str) -> int:
    depth = deepest = 0
    for sign in latex:
        depth += (sign in opening) - (sign in closing)
        deepest = max(deepest, depth)
    return deepest


def is_too_large_to_parse(latex: str) -> bool:
    """Tells whether the parser itself would compute something large, as of binomials, gcd and lcm."""
    return any(_LARGE.search(found[1] or found[2] or "") for found in _AT_ONCE.finditer(latex))


def digits(expression: object) -> float:
    """Returns a bound on the digits of the largest number that evaluating an expression makes."""
    if isinstance(expression, sympy.MatrixBase):
        return max(map(digits, expression.flat()), default=0.0)
    if isinstance(expression, sympy.Rational):
        return max(int(expression.p).bit_length(), int(expression.q).bit_length()) * log10(2)
    if isinstance(expression, sympy.Float):
        return max(1.0, abs(float(sympy.log(abs(expression), 10)))) if expression else 0.0
    if not isinstance(expression, sympy.Basic):
        return 0.0
    inner = [digits(one) for one in expression.args]
    return max([_own_digits(expression, inner), *inner], default=0.0)


def _own_digits(expression: sympy.Basic, inner: list[float]) -> float:
    """Returns a bound for an expression whose arguments need `inner` digits."""
    match expression:
        case sympy.Add():
            return max(inner, default=0.0) + log10(len(inner) + 1)
        case sympy.Mul():
            return sum(inner)
        case sympy.Pow() | sympy.exp():
            base, exponent = (inner[0], inner[1]) if len(inner) == 2 else (1.0, inner[0])
            return max(base, log10(2)) * _magnitude(expression.args[-1], exponent)
        case sympy.factorial() | sympy.factorial2() | sympy.subfactorial() | sympy.gamma():
            return inner[0] * _magnitude(expression.args[0], inner[0])
        case sympy.binomial() | sympy.ff() | sympy.rf():
            return inner[0] * min(
                _magnitude(one, size) for one, size in zip(expression.args, inner, strict=True)
            )
        case sympy.Product():
            terms = max(_magnitude(limit, digits(limit)) for limit in expression.limits[0][1:])
            return inf if terms > MAX_FACTORS and not expression.args[0].is_zero else inner[0] * terms
        case _:
            return 0.0


def _magnitude(expression: sympy.Basic, size: float) -> float:
    """Returns a bound on an expression's absolute value, of which only its digits are known."""
    if isinstance(expression, sympy.Number) and size < 15:
        return abs(float(expression))
    return 10.0**size if size < 300 else inf
