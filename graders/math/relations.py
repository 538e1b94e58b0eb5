"""Tells apart kinds of statements that math-verify takes for each other: ranges, ratios, lists, equations."""

from __future__ import annotations

import re
from fractions import Fraction

_ORDER = re.compile(r"[<>]|\\(?:le|ge|leq|geq|leqslant|geqslant|lt|gt)(?![a-zA-Z])")
_RANGE = re.compile(
    r"[\[(]\s*[^\[\](),]+,\s*[^\[\](),]+[\])]|\\(?:in|cup|cap|mid|setminus|mathbb)(?![a-zA-Z])|\\\{[^{}]*[:|][^{}]*\\\}"
)
_DECIMAL = r"[0-9]+(?:\.[0-9]+)?"
_RATIO = re.compile(rf"{_DECIMAL}(?:\s*:\s*{_DECIMAL}){{2,}}")
_DOTS = re.compile(r"\\(?:[lc]?dots|dots[bcm])(?![a-zA-Z])|\.\.\.|…")
_SIGNS = re.compile(r"\\(?:cdot|times)(?![a-zA-Z])|\s|\*")
_FRACTION = re.compile(r"\\frac\{([^{}]*)\}\{([^{}]*)\}")
_OF_ONE_UNKNOWN = re.compile(r"(?=.*[-+0-9./])[-+0-9./()]*[a-zA-Z](?!\()[-+0-9./()]*")


def differ_in_kind(reference: str, answer: str) -> bool:
    """Tells whether two tidy texts state things of different kinds, whatever their numbers are.

    An inequality is no list of numbers, a list that goes on is none that ends, and a ratio of three is no
    quotient. An equation in one unknown that is not solved, `2x = 6`, does not say 6.
    """
    is_order, is_other_order = (_ORDER.search(text) is not None for text in (reference, answer))
    if is_order != is_other_order and not _RANGE.search(answer if is_order else reference):
        return True
    if (_DOTS.search(reference) is None) != (_DOTS.search(answer) is None):
        return True
    if (ratio_of(reference) is None) != (ratio_of(answer) is None):
        return True
    return "=" not in reference and _is_unsolved(answer)


def ratio_of(text: str) -> tuple[Fraction, ...] | None:
    """Returns the parts of a ratio of three or more numbers, whose sum is 1; None for another text."""
    if not _RATIO.fullmatch(text.strip()):
        return None
    parts = [Fraction(part.strip()) for part in text.split(":")]
    total = sum(parts)
    return tuple(part / total for part in parts) if total else tuple(parts)


def _is_unsolved(answer: str) -> bool:
    """Tells whether an answer is an equation in one unknown whose left side is more than that."""
    left, _, right = answer.partition("=")
    left = _FRACTION.sub(r"(\1)/(\2)", _SIGNS.sub("", left))
    return bool(right) and "=" not in right and _OF_ONE_UNKNOWN.fullmatch(left) is not None
