r"""Finds the formulas of a text: between dollar signs, or in `\( \)` or `\[ \]`. A price is none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_FORMULA = 2_000
"""Characters of one formula, as of one answer; what is longer is none."""

_MARK = re.compile(r"\\\$|\$\$|\$|\\[()\[\]]")
_CLOSES = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]"}
_ON_ONE_LINE = ("$", r"\(")
_TEXT = re.compile(r"\\(?:text|mathrm|operatorname|mbox)\w*\s*\{[^{}]*\}")
_WORD = re.compile(r"[\s/]\(?(?!(?:and|or)\s+[-+0-9])[a-z]{2}")


class Formula(NamedTuple):
    """Says where a formula stands, its marks included, and what is between them."""

    start: int
    end: int
    inner: str


def formulas(text: str) -> Iterator[Formula]:
    """Yields the formulas from left to right, in linear time."""
    opened: re.Match[str] | None = None
    for mark in _MARK.finditer(text):
        if mark[0] == r"\$":
            continue
        if opened is not None and mark[0] == _CLOSES[opened[0]]:
            inner = text[opened.end() : mark.start()]
            if _is_formula(text, opened, mark, inner):
                yield Formula(opened.start(), mark.end(), inner)
                opened = None
            else:
                opened = mark if mark[0] in _CLOSES else None
        elif mark[0] in _CLOSES and (opened is None or opened[0] in _ON_ONE_LINE):
            opened = mark if opened is None or mark[0] != "$" else opened


def without_marks(text: str) -> str:
    """Returns a text in which formulas stand without their marks, and a price's dollar sign is escaped."""
    if "$" not in text and "\\" not in text:
        return text
    pieces, at = [], 0
    for found in formulas(text):
        pieces += [_escaped(text[at : found.start]), found.inner]
        at = found.end
    return "".join([*pieces, _escaped(text[at:])])


def _escaped(text: str) -> str:
    return re.sub(r"(?<!\\)\$", r"\\$", text)


def _is_formula(text: str, opened: re.Match[str], closing: re.Match[str], inner: str) -> bool:
    if not inner.strip() or len(inner) > MAX_FORMULA:
        return False
    if opened[0] in _ON_ONE_LINE and "\n" in inner and ("\n\n" in inner or "\\" not in inner):
        return False
    return opened[0] != "$" or not _is_between_prices(text, opened.start(), closing.end(), inner)


def _is_between_prices(text: str, start: int, end: int, inner: str) -> bool:
    """Tells whether two dollar signs belong to amounts of money, as in `$5 and gets $2` or `5$ to 7$`."""
    if text[end : end + 1].isdigit():
        return True
    if text[max(0, start - 2) : start].rstrip()[-1:].isdigit() and inner[0] in " ,.;:)-":
        return True
    if not inner.lstrip(" -+.")[:1].isdigit() or inner[0] == " " or inner[-1] not in " (":
        return False
    return inner.rstrip()[-1] in ",;:=+-*/(<>" or _WORD.search(_TEXT.sub("", inner)) is not None
