"""Compares a reference and an answer as far as that needs no library: numbers, lists of them, words."""

from __future__ import annotations

import re
from typing import NamedTuple

from graders.math.latex import (
    differ_in_unit,
    for_library,
    in_radians,
    is_prose,
    of_number,
    parted,
    unboxed,
    upright,
    words,
)
from graders.math.prose import given
from graders.math.reading import (
    Unreadable,
    is_name,
    plain_number,
    read_list,
    read_value,
    without_name,
)
from graders.math.relations import differ_in_kind, ratio_of
from graders.math.symbols import told_apart
from graders.math.tidy import is_plain
from graders.math.values import Number, Value, same_value, tolerance


class NeedsLibrary(NamedTuple):
    """Holds what math-verify must compare; a reference of None can be read by neither."""

    reference: str | None
    answer: str


def compared_here(reference: str, answer: str, decimals: int) -> bool | NeedsLibrary | None:
    """Tells whether a tidy answer equals a tidy reference; None if the answer cannot be read."""
    if reference == answer and any(c.isalnum() for c in answer):
        return True
    if is_plain(reference) and is_plain(answer):
        return same_value(plain_number(reference), plain_number(answer), decimals)
    exact, _, rounded = (side.strip() for side in answer.partition(r"\approx"))
    if rounded and r"\approx" not in reference:
        verdict = compared_here(reference, rounded if is_name(exact) else exact, decimals)
        return _or_rounded(reference, exact, rounded, decimals) if verdict is False else verdict
    (name, ours), (other_name, theirs) = _bare(reference), _bare(answer)
    value, is_readable = _value(ours)
    if not is_readable:
        return NeedsLibrary(None, "")
    if value is not None and not answer:
        return None
    if not name or not other_name or name == other_name:
        found, is_answer = _value(theirs)
        if not is_answer:
            return None if value is not None else _for_library(reference, "")
        if value is not None and found is not None:
            return _same(value, found, ours, theirs, decimals)
        reference, answer = _plainly(value, reference), _plainly(found, answer)
    if (ratio := ratio_of(ours)) is not None and (other := ratio_of(theirs)) is not None:
        return ratio == other
    if (said := words(ours)) is not None and (told := words(theirs)) is not None:
        return said == told
    return _for_library(reference, answer)


def _plainly(value: Value | None, text: str) -> str:
    """Returns a number as the library reads it, so that it needs to know nothing of bases; else the text."""
    return (of_number(value) if isinstance(value, Number) else None) or text


def _same(one: Value, other: Value, ours: str, theirs: str, decimals: int) -> bool:
    """Compares two values; beside a list, a number that its commas may make a list is one."""
    if isinstance(one, tuple) and (listed := read_list(theirs)) is not None:
        return same_value(one, listed, decimals)
    if isinstance(other, tuple) and (listed := read_list(ours)) is not None:
        return same_value(listed, other, decimals)
    return same_value(one, other, decimals)


def _or_rounded(reference: str, exact: str, rounded: str, decimals: int) -> bool:
    """Tells whether the reference is what an answer says to be about its own value, rounded as shown."""
    (value, _), (about, _) = _value(_bare(exact)[1]), _value(_bare(rounded)[1])
    if not isinstance(value, Number) or not isinstance(about, Number):
        return False
    places = len(re.sub(r".*\.", "", rounded.split(" ")[0])) if "." in rounded else 0
    is_about = abs(value.value - about.value) <= tolerance(places)
    return is_about and compared_here(reference, rounded, decimals) is True


def _bare(text: str) -> tuple[str, str]:
    """Returns the name and the last side of an answer."""
    name, rest = without_name(unboxed(text))
    return name, given(rest)


def _value(text: str) -> tuple[Value | None, bool]:
    """Returns the value of a text, and whether it may be read at all."""
    try:
        return read_value(text), True
    except Unreadable:
        return None, False


def _for_library(reference: str, answer: str) -> bool | NeedsLibrary | None:
    if is_prose(reference) or (reference and answer and differ_in_kind(reference, answer)):
        return False
    reference, answer = told_apart(*in_radians(upright(reference), upright(answer)))
    ours, unit = parted(reference)
    theirs, other_unit = parted(answer)
    if differ_in_unit(unit, other_unit):
        return False
    try:
        wanted = for_library(ours)
    except Unreadable:
        return NeedsLibrary(None, "")
    try:
        return NeedsLibrary(wanted, "" if is_prose(answer) else for_library(theirs))
    except Unreadable:
        return NeedsLibrary(wanted, "")
