"""Comparing two single JSON values by a field's rule."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Hashable
from datetime import date, datetime
from typing import Any

from rapidfuzz import fuzz

from graders.spec_fields import DateRule, FuzzyRule, NumberRule, ScalarRule, TextRule
from graders.types import FailureKind, GradeFailed

MAX_TEXT = 65_536
"""Characters of a text that `fuzzy` compares."""

_KEPT = "#%&@*+."
"""Punctuation that carries meaning: C, C# and C++ are three languages. Full stops are looked at apart."""

_MINUS = re.compile(r"(?<!\w)[-\u2212](?=\.?[0-9])")
_FULL_STOP = re.compile(r"\.(?![0-9])")
_NUMBER = re.compile(
    r"[-+]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?"
)
_WHOLE = re.compile(r"[-+]?[0-9]{1,60}")
_NUMERIC_DATE = re.compile(r"([0-9]{1,4})([-/. ])([0-9]{1,2})\2([0-9]{1,4})")
_DAY_FIRST_DATE = re.compile(r"([0-9]{1,2})(?:st|nd|rd|th)? (?:of )?([a-z]+) ([0-9]{4})")
_MONTH_FIRST_DATE = re.compile(r"([a-z]+) ([0-9]{1,2})(?:st|nd|rd|th)? ([0-9]{4})")
_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_WEEKDAY = re.compile(r"(?:mon|tue|tues|wed|wednes|thu|thur|thurs|fri|sat|satur|sun)(?:day)? ")


def scalar_score(rule: ScalarRule, answer: Any, reference: Any, at: str) -> float:
    """How well an answer's value agrees with the reference, 0 to 1.

    Raises `GradeFailed` (invalid_variable_error) if the reference is not what the rule compares; `at` names
    the field in that message. An answer that cannot be read as what the rule compares scores 0.
    """
    match rule:
        case TextRule() | DateRule():
            return float(equality_key(rule, answer) == reference_key(rule, reference, at))
        case NumberRule():
            low, high = number_bounds(rule, reference_number(reference, at))
            number = parse_number(answer)
            return float(number is not None and low <= number <= high)
        case FuzzyRule():
            if answer is None or isinstance(answer, dict | list) != isinstance(reference, dict | list):
                return 0.0
            return text_ratio(normalized(answer), normalized(reference), rule.threshold)


def equality_key(rule: TextRule | DateRule, value: Any) -> Hashable:
    """Two values agree when their keys are equal. None: the value cannot be read (not a date)."""
    if isinstance(rule, DateRule):
        return parse_date(value, day_first=rule.day_first)
    kind = type(value).__name__
    match value:
        case dict() | list():
            text = canonical_json(value)
            return ("json", text if rule.compare == "exact" else fold(text))
        case None:
            return ("null",)
        case int() | float() if rule.compare == "exact" and not isinstance(value, bool):
            return ("number", value)
        case _ if rule.compare == "exact":
            return (kind, value)
        case _:
            return ("text", normalized(value))


def reference_key(rule: TextRule | DateRule, reference: Any, at: str) -> Hashable:
    """The reference's `equality_key`. Raises `GradeFailed` if it has none."""
    key = equality_key(rule, reference)
    if key is None:
        hint = "" if isinstance(rule, DateRule) and rule.day_first is not None else "; is day_first needed?"
        raise unusable(at, reference, f"a date{hint}")
    return key


def reference_number(reference: Any, at: str) -> float:
    """The reference as a number. Raises `GradeFailed` if it is none."""
    number = parse_number(reference)
    if number is None:
        raise unusable(at, reference, "a number")
    return number


def unusable(at: str, reference: Any, wanted: str) -> GradeFailed:
    """The failure for a reference that the field's rule cannot compare."""
    shown = canonical_json(reference)[:60]
    return GradeFailed(FailureKind.INVALID_VARIABLE, f"The reference of '{at}', {shown}, is not {wanted}.")


def normalized(value: Any) -> str:
    """A value's text, folded; numbers, booleans, null, arrays and objects by their JSON."""
    if isinstance(value, str):
        return fold(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return fold(canonical_json(value))


def fold(text: str) -> str:
    """Fold what should not matter: NFKC, case, white space, punctuation, invisible format characters.

    Apostrophes and full stops go (`M.I.T.` is `mit`), other punctuation becomes a space. What stays: the
    signs `# % & @ * +`, a number's minus sign and decimal point, accents, look-alike letters of other
    alphabets, and the punctuation of a text that has nothing else.
    """
    plain = unicodedata.normalize("NFKC", text)
    if not plain.isascii():
        plain = unicodedata.normalize("NFKC", plain.casefold())
    plain = _MINUS.sub("\u2212", plain.lower())  # a symbol, so it is not folded as punctuation
    folded = " ".join(_FULL_STOP.sub("", plain).translate(_FOLDED).split())
    return folded or " ".join(plain.split())


def text_ratio(text: str, reference: str, threshold: float) -> float:
    """rapidfuzz ratio (normalised indel similarity), 0 to 1; 0 below the threshold."""
    ratio = fuzz.ratio(text[:MAX_TEXT], reference[:MAX_TEXT]) / 100
    return ratio if ratio >= threshold else 0.0


def number_bounds(rule: NumberRule, reference: float) -> tuple[float, float]:
    """The smallest and the largest number that agree with the reference."""
    if not rule.abs_tolerance and not rule.rel_tolerance:
        return reference, reference
    tolerance = max(rule.abs_tolerance, rule.rel_tolerance * abs(reference))
    return reference - tolerance, reference + tolerance


def parse_number(value: Any) -> float | None:
    """A JSON number, or text such as `-1,234.5` or `1e3`. No currency, percent or words.

    Whole numbers stay exact integers.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str) or len(value) > 80:
        return None
    text = value.strip().replace("\u2212", "-")
    if not _NUMBER.fullmatch(text):
        return None
    text = text.replace(",", "")
    if _WHOLE.fullmatch(text):
        return int(text)
    number = float(text)
    return number if abs(number) != float("inf") else None


def parse_date(value: Any, *, day_first: bool | None) -> date | None:
    """The day that a text names, or None if that is not clear.

    ISO 8601 (a time of day is dropped), `2024/3/5`, `5 March 2024`, `Mar 5th, 2024`, and `25/03/2024` where
    only one reading is a date. With `day_first` given, also `05/03/2024` and years of two digits
    (69-99 are 19xx). Month and day names are English.
    """
    if not isinstance(value, str) or len(value) > 60:
        return None
    text = value.strip()
    try:
        return datetime.fromisoformat(text).date()
    except ValueError:
        pass
    try:
        if numeric := _NUMERIC_DATE.fullmatch(text):
            return _numeric_date(numeric[1], numeric[3], numeric[4], day_first)
        return _written_date(text)
    except ValueError:
        return None


def _numeric_date(first: str, second: str, third: str, day_first: bool | None) -> date | None:
    if len(first) == 4:
        return date(int(first), int(second), int(third))
    a, b = int(first), int(second)
    if len(third) == 2 and day_first is not None:
        year = int(third) + (1900 if int(third) >= 69 else 2000)
    elif len(third) == 4:
        year = int(third)
    else:
        return None
    if day_first is None and a <= 12 and b <= 12 and a != b:
        return None
    a_is_day = a > 12 if day_first is None else day_first
    return date(year, b, a) if a_is_day else date(year, a, b)


def _written_date(text: str) -> date | None:
    plain = " ".join(re.sub(r"[,.\-/]", " ", text.lower()).split())
    plain = _WEEKDAY.sub("", plain, count=1) if _WEEKDAY.match(plain) else plain
    if found := _DAY_FIRST_DATE.fullmatch(plain):
        day, month, year = found.groups()
    elif found := _MONTH_FIRST_DATE.fullmatch(plain):
        month, day, year = found.groups()
    else:
        return None
    number = _month(month)
    return date(int(year), number, int(day)) if number else None


def _month(name: str) -> int | None:
    """1..12 for an English month name, whole or cut to three letters (and `sept`)."""
    for number, month in enumerate(_MONTHS, start=1):
        if name in (month, month[:3]) or (name == "sept" and number == 9):
            return number
    return None


def canonical_json(value: Any) -> str:
    """Compact JSON with sorted keys: equal values give equal text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


class _Folding(dict[int, str]):
    """What each character becomes, worked out when it is first not ASCII."""

    def __missing__(self, code: int) -> str:
        return _folded_character(chr(code))


def _folded_character(character: str) -> str:
    if character in "'\u2019" or unicodedata.category(character) == "Cf":
        return ""
    if unicodedata.category(character).startswith("P") and character not in _KEPT:
        return " "
    return character


_FOLDED = _Folding({code: _folded_character(chr(code)) for code in range(128)})
