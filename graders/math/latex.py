"""Writes a tidy answer as the LaTeX that math-verify reads, and tells words from formulas."""

from __future__ import annotations

import re

from graders.math.reading import Unreadable
from graders.math.units import read_unit
from graders.math.values import Number

MAX_WORDS = 4
"""Words of three letters or more in an expression that make it prose; names of functions are fewer."""

_PROSE_WORD = re.compile(r"(?<![a-zA-Z])[a-zA-Z]{3,}(?![a-zA-Z])")
_SCIENTIFIC = re.compile(r"(?<![\w.\\])([0-9]+(?:\.[0-9]+)?)[eE]([-+]?[0-9]{1,5})(?![\w.])")
_MIXED = re.compile(r"(?<![\w.^/{])([0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)(?![\w./^])")
_GROUPED = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:(?:,[0-9]{3})+|(?: [0-9]{3})+)(?![0-9])")
_SIDE_BY_SIDE = re.compile(r"(?<!_)(?<!\\frac)(?<!\\frac )[0-9]\s+\.?[0-9]")
_ROMAN = re.compile(r"\\(?:mathrm|text|operatorname)\s*\{\s*([eid])\s*\}")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{(.*)\}", re.DOTALL)
_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})")
_OF_ANGLES = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_UNIT = re.compile(
    r"(?P<rest>.*[0-9a-zA-Z)}\]%!])\s*"
    r"(?P<unit>\\(?:text|mathrm|mbox|textbf|textrm)\s*\{(?P<words>[^{}]*)\}(?:\s*\^\s*\{?[0-9]\}?)?)",
    re.DOTALL,
)
_TRAILING_WORDS = re.compile(
    r"(?P<rest>.*(?:[0-9][a-z]?|[)}\]]|\\pi))\s+(?P<unit>[a-z]{2}[^0-9\\=<>]*)", re.DOTALL
)
_JOINS = re.compile(r"[,\s]*\b(?:and|or)\b")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|textit|mbox|operatorname)\s*\{([^{}]*)\}")
_SHORT_WORDS = frozenset(("yes", "no", "true", "even", "odd", "none"))
"""Words of few letters that are answers, and no products of letters."""
_WORDS = re.compile(r"[^\W\d_]+(?:[\s'’-]+[^\W\d_]+)*\.?")


def for_library(answer: str) -> str:
    """Returns a tidy answer in LaTeX that math-verify reads as it is meant. Raises `Unreadable`."""
    text = _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", answer)
    text = _MIXED.sub(_sum, text)
    text = _GROUPED.sub(_ungrouped, text)
    if _SIDE_BY_SIDE.search(text):
        raise Unreadable("numbers side by side are no value")
    return text


def upright(text: str) -> str:
    r"""Returns an expression in which `e`, `i` and `d` are letters, also where it has them in roman type."""
    return _ROMAN.sub(r"\1", text)


def in_radians(one: str, other: str) -> tuple[str, str]:
    r"""Returns two expressions whose degrees are radians where they stand beside \pi or in a sine.

    The library drops the sign of degrees. Angles that are both in degrees, or that meet a bare number, stay.
    """
    sides = (one, other)
    meets_pi = any(r"\pi" in side and not _DEGREES.search(side) for side in sides)
    ours, theirs = (_radians(side) if meets_pi or _OF_ANGLES.search(side) else side for side in sides)
    return ours, theirs


def _radians(text: str) -> str:
    return _DEGREES.sub(r"(\\frac{\1 \\pi}{180})", text)


def unboxed(text: str) -> str:
    """Returns an answer without boxes around all of it."""
    while boxed := _BOX.fullmatch(text):
        text = boxed[1].strip()
    return text


def of_number(number: Number) -> str | None:
    """Returns a whole number or fraction in LaTeX; None for a number whose way of writing says more."""
    if number.is_decimal or number.is_percent or number.unit is not None:
        return None
    top, bottom = number.value.numerator, number.value.denominator
    return str(top) if bottom == 1 else rf"\frac{{{top}}}{{{bottom}}}"


def parted(text: str) -> tuple[str, str]:
    r"""Returns an expression and the unit or words after it, as in `\sqrt{2} \text{ cm}`."""
    found = _UNIT.fullmatch(text) or _TRAILING_WORDS.fullmatch(text)
    if found is None or _JOINS.match(found["unit"]) or _JOINS.search(found["unit"]):
        return text, ""
    return found["rest"], found["unit"]


def words(answer: str) -> str | None:
    """Returns an answer of words in small letters; None for any other, such as a product of letters."""
    plain, wrapped = _WRAPPED.subn(r"\1", answer)
    plain = " ".join(plain.split())
    is_worded = _WORDS.fullmatch(plain) and (wrapped or re.search(r"\w\w+ \w\w+", plain) or len(plain) > 4)
    said = plain.rstrip(".").casefold()
    return said if said in _SHORT_WORDS or (is_worded and len(plain) > 1) else None


def is_prose(answer: str) -> bool:
    """Tells whether an answer has words between its formulas, which the library multiplies as letters."""
    bare = re.sub(r"\\(?:begin|end)\{[^{}]*\}|\\[a-zA-Z]+", " ", _WRAPPED.sub(" ", answer))
    return len(_PROSE_WORD.findall(bare)) >= MAX_WORDS and words(answer) is None


def differ_in_unit(one: str, other: str) -> bool:
    """Tells whether two texts name units, and not the same."""
    first, second = read_unit(one), read_unit(other)
    return first is not None and second is not None and first != second


def _ungrouped(grouped: re.Match[str]) -> str:
    """Returns a number without what groups its thousands; in brackets a comma parts the members of a pair."""
    before = grouped.string[: grouped.start()]
    is_in_brackets = before.count("(") + before.count("[") > before.count(")") + before.count("]")
    if "," in grouped[0] and (is_in_brackets or before.endswith(r"\{")):
        return grouped[0]
    return re.sub("[, ]", "", grouped[0])


def _sum(mixed: re.Match[str]) -> str:
    whole, top, bottom = mixed.groups()
    if int(top) >= int(bottom):
        raise Unreadable(f"{mixed[0]} is no mixed number")
    return rf"({whole}+\frac{{{top}}}{{{bottom}}})"
