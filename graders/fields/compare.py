"""Compares two single JSON values by a field's rule."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any

import regex
from rapidfuzz import fuzz
from rapidfuzz.distance import JaroWinkler

from graders.fields.dates import read_date
from graders.fields.numbers import CACHED_NUMBERS, exact, nearest, read_number
from graders.fields.spec import BooleanRule, DateRule, Fold, FuzzyRule, NumberRule, ScalarRule, TextRule
from graders.types import FailureKind, GradeFailed

MAX_TEXT = 65_536
"""Characters of a text that `fuzzy` compares."""

_KEPT = "#%&@*+."
"""Punctuation that carries meaning: C, C# and C++ are three languages. Full stops are looked at apart."""

_MINUS = re.compile(r"(?<!\w)[-\u2212](?=\.?[0-9])")
_FULL_STOP = re.compile(r"\.(?![0-9])")
_WHOLE_FLOAT = re.compile(r"[0-9](?:\.0(?![0-9])|e\+)")
"""How JSON may write a whole number as a float."""
_YES = frozenset(("true", "yes", "y", "on", "1"))
_NO = frozenset(("false", "no", "n", "off", "0"))
_ARTICLE = re.compile(r"\b(?:a|an|the)\b", re.IGNORECASE)

PATTERN_SECONDS = 0.1
"""What a regular expression of a rule may take on one text."""


def scalar_score(rule: ScalarRule, answer: Any, reference: Any, at: str) -> float:
    """Returns how well an answer's value agrees with the reference, 0 to 1.

    Raises `GradeFailed` (invalid_variable_error) if the reference is not what the rule compares; `at` names
    the field in that message. An answer that cannot be read as what the rule compares scores 0.
    """
    match rule:
        case TextRule() | DateRule() | BooleanRule():
            return float(equality_key(rule, answer) == reference_key(rule, reference, at))
        case NumberRule():
            low, high = number_bounds(rule, reference_number(rule, reference, at))
            number = read_number(answer, rule)
            return float(number is not None and low <= number <= high)
        case FuzzyRule():
            if answer is None or isinstance(answer, dict | list) != isinstance(reference, dict | list):
                return 0.0
            text, wanted = folded(rule, answer), reference_text(rule, reference, at)
            return 0.0 if text is None else text_ratio(text, wanted, rule)


def equality_key(rule: TextRule | DateRule | BooleanRule, value: Any) -> Hashable:
    """Returns a key that is equal for values that agree; None for a value that cannot be read."""
    if isinstance(rule, DateRule):
        return read_date(value, rule)
    if isinstance(rule, BooleanRule):
        return read_boolean(value)
    if rule.compare == "exact":
        return _exact_key(value)
    if value is None:
        return ("null",)
    text = folded(rule, value)
    return None if text is None else ("json" if isinstance(value, dict | list) else "text", text)


def _exact_key(value: Any) -> Hashable:
    match value:
        case dict() | list():
            return ("json", canonical_json(value))
        case int() | float() if not isinstance(value, bool):
            return ("number", value)
        case _:
            return (type(value).__name__, value)


def read_boolean(value: Any) -> bool | None:
    """Returns a truth value, or the one that a text or number says; None if it says none."""
    word = str(value).strip().lower() if isinstance(value, bool | int | str) else ""
    return True if word in _YES else False if word in _NO else None


def reference_key(rule: TextRule | DateRule | BooleanRule, reference: Any, at: str) -> Hashable:
    """Returns the reference's `equality_key`. Raises `GradeFailed` if it has none."""
    key = equality_key(rule, reference)
    if key is None:
        match rule:
            case DateRule(day_first=None):
                wanted = "a date; is day_first needed?"
            case DateRule():
                wanted = "a date"
            case BooleanRule():
                wanted = "a truth value"
            case _:
                wanted = "a text that 'remove' gets through in time"
        raise unusable(at, reference, wanted)
    return key


def reference_text(rule: FuzzyRule, reference: Any, at: str) -> str:
    """Returns the reference, folded. Raises `GradeFailed` if its pattern takes too long."""
    text = folded(rule, reference)
    if text is None:
        raise unusable(at, reference, "a text that 'remove' gets through in time")
    return text


def reference_number(rule: NumberRule, reference: Any, at: str) -> float:
    """Returns the reference as a number. Raises `GradeFailed` if it is none."""
    number = read_number(reference, rule)
    if number is None:
        raise unusable(at, reference, f"a number in {rule.unit}" if rule.unit else "a number")
    return number


def unusable(at: str, reference: Any, wanted: str) -> GradeFailed:
    """Returns the failure for a reference that the field's rule cannot compare."""
    shown = canonical_json(reference)[:60]
    return GradeFailed(FailureKind.INVALID_VARIABLE, f"The reference of '{at}', {shown}, is not {wanted}.")


def as_plain_text(value: Any) -> str:
    """Returns a value's text; numbers, booleans, null, arrays and objects by their JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return canonical_json(value)


def folded(rule: TextRule | FuzzyRule, value: Any) -> str | None:
    """Returns a value's text without what a rule ignores; None if the rule's pattern took too long on it."""
    text = as_plain_text(value)
    if rule.remove is not None:
        try:
            text = regex.sub(rule.remove, "", text[:MAX_TEXT], timeout=PATTERN_SECONDS)
        except TimeoutError:
            return None
    return fold(text) if rule.normalize is None else fold_by(rule.normalize, text)


def fold_by(folds: Sequence[Fold], text: str) -> str:
    """Folds what is named and nothing else; it always applies NFKC."""
    plain = unicodedata.normalize("NFKC", text)
    if "case" in folds:
        plain = unicodedata.normalize("NFKC", plain.casefold())
    if "accents" in folds:
        apart = unicodedata.normalize("NFD", plain)
        plain = unicodedata.normalize("NFC", "".join(c for c in apart if not unicodedata.combining(c)))
    if "articles" in folds:
        plain = _ARTICLE.sub(" ", plain)
    if "punctuation" in folds:
        plain = _FULL_STOP.sub("", _MINUS.sub("\u2212", plain)).translate(_FOLDED) or plain
    return " ".join(plain.split()) if "whitespace" in folds else plain


def fold(text: str) -> str:
    """Folds what should not matter: NFKC, case, white space, punctuation, invisible format characters.

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


_SCORERS: dict[str, Callable[[str, str], float]] = {
    "ratio": fuzz.ratio,
    "token_sort": fuzz.token_sort_ratio,
    "token_set": fuzz.token_set_ratio,
    "partial": fuzz.partial_ratio,
    "jaro_winkler": lambda text, reference: 100 * JaroWinkler.similarity(text, reference),
}
MAX_PARTIAL = 4_096
"""Characters that `partial` compares: its alignment takes more than quadratic time."""


def text_ratio(text: str, reference: str, rule: FuzzyRule) -> float:
    """Returns rapidfuzz's similarity of two texts, 0 to 1; 0 below the threshold, and if either is empty."""
    most = MAX_PARTIAL if rule.scorer in ("partial", "token_set") else MAX_TEXT
    if rule.scorer == "ratio" or (text and reference):
        score = _SCORERS[rule.scorer](text[:most], reference[:most]) / 100
        return score if score >= rule.threshold else 0.0
    return float(text == reference)


def number_bounds(rule: NumberRule, reference: float) -> tuple[float, float]:
    """Returns the smallest and the largest number that agree with the reference."""
    if not rule.abs_tolerance and not rule.rel_tolerance:
        return reference, reference
    return _bounds(reference, rule.abs_tolerance, rule.rel_tolerance)


@lru_cache(maxsize=CACHED_NUMBERS)
def _bounds(reference: float, absolute: float, relative: float) -> tuple[float, float]:
    number = exact(reference)
    tolerance = max(exact(absolute), exact(relative) * abs(number))
    low, high = nearest(number - tolerance), nearest(number + tolerance)
    return (-math.inf if low is None else low), (math.inf if high is None else high)


def canonical_json(value: Any) -> str:
    """Returns compact JSON with sorted keys: equal values give equal text, 1 and 1.0 too."""
    text = _dumped(value)
    return _dumped(_with_whole_numbers(value)) if _WHOLE_FLOAT.search(text) else text


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _with_whole_numbers(value: Any) -> Any:
    match value:
        case dict():
            return {key: _with_whole_numbers(each) for key, each in value.items()}
        case list():
            return [_with_whole_numbers(each) for each in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


class _Folding(dict[int, str]):
    """Maps each character to what it becomes, worked out when it is first met if it is not ASCII."""

    def __missing__(self, code: int) -> str:
        return _folded_character(chr(code))


def _folded_character(character: str) -> str:
    if character in "'\u2019" or unicodedata.category(character) == "Cf":
        return ""
    if unicodedata.category(character).startswith("P") and character not in _KEPT:
        return " "
    return character


_FOLDED = _Folding({code: _folded_character(chr(code)) for code in range(128)})
