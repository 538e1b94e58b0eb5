"""Compares a reference and an answer as far as that needs no library: numbers, lists of them, words."""

from __future__ import annotations

from typing import NamedTuple

from graders.math.latex import differ_in_unit, for_library, is_unit, parted, words
from graders.math.prose import given
from graders.math.values import Unreadable, Value, read_value, same_value, without_name


class NeedsLibrary(NamedTuple):
    """Holds what math-verify must compare; a reference of None can be read by neither."""

    reference: str | None
    answer: str


def compared_here(reference: str, answer: str, decimals: int) -> bool | None | NeedsLibrary:
    """Tells whether a tidy answer equals a tidy reference; None if the answer cannot be read."""
    if reference == answer and any(c.isalnum() for c in answer):
        return True
    (name, ours), (other_name, theirs) = _bare(reference), _bare(answer)
    value, is_readable = _value(ours)
    if not is_readable:
        return NeedsLibrary(None, "")
    if value is not None and not answer:
        return None
    if not name or not other_name or name == other_name:
        found, is_answer = _value(theirs)
        if not is_answer:
            return None if value is not None else NeedsLibrary(for_library(reference), "")
        if value is not None and found is not None:
            return same_value(value, found, decimals)
    if (said := words(ours)) is not None and (told := words(theirs)) is not None:
        return said == told
    return _for_library(reference, answer)


def _bare(text: str) -> tuple[str, str]:
    """Returns the name and the last side of an answer."""
    name, rest = without_name(text)
    return name, given(rest)


def _value(text: str) -> tuple[Value | None, bool]:
    """Returns the value of a text, and whether it may be read at all."""
    try:
        return read_value(text), True
    except Unreadable:
        return None, False


def _for_library(reference: str, answer: str) -> bool | NeedsLibrary | None:
    ours, unit = parted(reference)
    theirs, other_unit = parted(answer)
    if differ_in_unit(unit, other_unit):
        return False
    try:
        wanted = for_library(ours)
    except Unreadable:
        return NeedsLibrary(None, "")
    try:
        return NeedsLibrary(wanted, for_library(theirs))
    except Unreadable:
        return NeedsLibrary(wanted, "")
