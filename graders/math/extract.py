"""Finds where in a text its mathematical answer stands. Each search takes linear time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from graders.math.boxes import last_box
from graders.math.formulas import MAX_FORMULA, Formula, formulas
from graders.math.prose import MAX_LINE, first_value, last_value, plain_line
from graders.math.reading import without_name
from graders.math.tidy import is_plain, plain_width, tidy, without_line_marks, without_markup
from graders.spec_base import Extractor

MAX_ANSWER = MAX_FORMULA
"""Characters of one answer; a longer one is none."""

MAX_ANNOUNCED = 4
"""Announcements of an answer, from the end, that are looked at for one with a value."""

_ANSWER_IS = re.compile(
    r"\banswers?\b[*_`]*(?:[ \t]+(?:to|for|of)\b[^\n.:=]{0,80}?)?[ \t*_`]*"
    r"(?:\b(?:is|are)\b(?![ \t]+not\b)"
    r"(?:[ \t]+(?:therefore|thus|then|simply|exactly|approximately|about|given by)\b)?[ \t]*:?|[:=]"
    r"|(?=\n))[*_`]*[ \t:]*",
    re.IGNORECASE,
)
_HOPE = re.compile(r"\.? *I hope it is correct\.?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])[*_`]*\s+")
_SAYS = re.compile(r"\b(?:is|are|equals|be|was)\b|=")
_SAYS_ONLY = re.compile(r"\s*[A-Z][^$\\\d=]*\s(?:is|are):?\s+(\S[^\n]*)\Z")
_JOINED = re.compile(r"[ \t]*(?:,?[ \t]*(?:and|or)|,)[ \t]*")
_CONCLUDES = re.compile(
    r"\A[^.!?\n$]*?(?:(?<!which )\b(?:is|are|equals)\b|\b(?:so|thus|hence|therefore|total|altogether)\b|=)",
    re.IGNORECASE,
)
_BARE_NAME = re.compile(r"\s*\\?[a-zA-Z]+(?:_(?:\w|\{\w+\}))?\s*(?:\([a-zA-Z]\))?\s*")
_MATHS = re.compile(r"[0-9π√∞½⅓¼¾⅔]|\\(?:frac|sqrt|pi|infty)")


def answers(text: str, extractors: Sequence[Extractor]) -> Iterator[str]:
    """Yields the answer that each extractor finds, best first; those that find none are left out.

    If boxes are looked for, an empty or cut box that was begun last means that there is no answer, and one
    that the text takes back leaves only what follows.
    """
    text = plain_width(text)
    box = last_box(text) if "boxed" in extractors else None
    if box is not None and not box.inner:
        if not box.is_withdrawn:
            return
        text, box = text[box.after :], None
    for extractor in extractors:
        found = (box.inner if box else None) if extractor == "boxed" else _find(extractor, text, extractors)
        if found is None or len(found) > 2 * MAX_ANSWER:
            continue
        if (plain := tidy(found)) and len(plain) <= MAX_ANSWER:
            yield plain


def as_answer(reference: str, extractors: Sequence[Extractor]) -> str:
    """Returns a reference written as an answer in which the first extractor finds it."""
    plain = reference_answer(reference)
    match extractors[0]:
        case "boxed":
            return f"\\boxed{{{plain}}}"
        case "hash":
            return f"#### {plain}"
        case "answer":
            return f"The answer is ${plain}$"
        case "latex":
            return f"${plain}$"
        case _:
            return plain


def reference_answer(reference: str) -> str:
    """Returns the answer that a reference holds, tidy: in its box, after `####` or "answer is", or all."""
    if is_plain(reference):
        return reference
    said = _SAYS_ONLY.match(reference)
    return next(answers(said[1] if said else reference, ["boxed", "hash", "answer", "whole"]), "")


def _find(extractor: Extractor, text: str, extractors: Sequence[Extractor]) -> str | None:
    match extractor:
        case "hash":
            return _after_hash(text)
        case "answer":
            return _announced(text)
        case "latex":
            return _last_latex(text, or_later_number="number" in extractors)
        case "number":
            return _last_number(text)
        case _:
            return text


def _after_hash(text: str) -> str | None:
    """Returns what the last `####` marks; a heading with words that more text follows is none."""
    before, mark, after = text.rpartition("####")
    if not mark:
        return None
    line, _, more = after.partition("\n")
    if is_plain(line.strip()):
        return line
    plain = plain_line(line)
    value = first_value(plain)
    if value is not None:
        return value
    is_heading = bool(more.strip()) and before[-1:] in ("", "\n")
    if is_heading:
        return None
    return _announced(line) or line


def _announced(text: str) -> str | None:
    """Returns what follows the last "the answer is" (or the like) that a value follows."""
    if "nswer" not in text and "NSWER" not in text:  # most texts; the search below costs more
        return None
    places = list(_ANSWER_IS.finditer(text))[-MAX_ANNOUNCED:]
    worded = None
    for place in reversed(places):
        line = _HOPE.sub("", text[place.end() :].lstrip("\n* \t_`").split("\n", 1)[0][: 2 * MAX_ANSWER])
        for sentence in _SENTENCE_END.split(without_line_marks(without_markup(line))):
            if (value := _said(sentence)) is not None:
                return value
        if worded is None and line.strip():
            worded = _SENTENCE_END.split(line)[0]
    return worded


def _said(sentence: str) -> str | None:
    """Returns the value that a sentence about the answer gives: at its start, or after "is"."""
    found = _joined_formulas(sentence)
    if found and not sentence[: found[0].start].strip(" :("):
        return _text(found, sentence)
    plain = plain_line(sentence)
    if (value := first_value(plain)) is not None:
        return value
    if found and not _is_overtaken(sentence, found[-1]):
        return _text(found, sentence)
    return last_value(plain) if _SAYS.search(plain) else _first_number(plain)


def _first_number(plain: str) -> str | None:
    at = _MATHS.search(plain)
    return first_value(plain[plain.rfind(" ", 0, at.start()) + 1 :]) if at else None


def _last_latex(text: str, *, or_later_number: bool) -> str | None:
    """Returns the last formula, with those it is listed with.

    None where a number in words comes later, if such numbers are looked for too.
    """
    found = _joined_formulas(text, last=True)
    if not found or (or_later_number and _is_overtaken(text, found[-1])):
        return None
    return _text(found, text)


def _joined_formulas(text: str, *, last: bool = False) -> list[Formula]:
    """Returns the first or last formulas of a text that "and", "or" or commas join.

    Two with a name each (`$n = 3$, $f(n) = 12$`) are a list only where the text begins with them.
    """
    if "$" not in text and "\\" not in text:
        return []
    every = list(formulas(text))
    if last:
        every.reverse()
    joined = every[:1]
    is_said = not last and bool(every) and not text[: every[0].start].strip(" :(")
    for one in every[1:]:
        left, right = (one, joined[-1]) if last else (joined[-1], one)
        gap = text[left.end : right.start]
        if not _JOINED.fullmatch(gap) or not (is_said or _are_alike(left.inner, right.inner)):
            break
        joined.append(one)
    return joined[::-1] if last else joined


def _are_alike(one: str, other: str) -> bool:
    """Tells whether two formulas are both without a name, or have the same."""
    return without_name(one)[0] == without_name(other)[0] and ("=" in one) == ("=" in other)


def _is_overtaken(text: str, formula: Formula) -> bool:
    """Tells whether a number in words after a formula is rather the answer.

    It is if it stands in a later sentence or after a word that concludes, or the formula is a name alone.
    """
    rest = text[formula.end :]
    if not _MATHS.search(rest):
        return False
    if _BARE_NAME.fullmatch(formula.inner):
        return True
    if (says := _CONCLUDES.search(rest)) is not None and _MATHS.search(
        _SENTENCE_END.split(rest[says.end() :])[0]
    ):
        return True
    ended = "." if formula.inner.rstrip().endswith(".") else ""
    later = _SENTENCE_END.split(ended + rest.replace("\n", ". \n"), maxsplit=1)[1:]
    return bool(later) and _last_number(later[0]) is not None


def _text(found: list[Formula], text: str) -> str:
    """Returns formulas as one answer, with the unit or percent sign after the last."""
    inner = ", ".join(formula.inner.strip() for formula in found)
    if len(found) == 1:
        rest = text[found[0].end :].split("\n", 1)[0][:80]
        after = first_value(f"1{rest}") if rest[:1] in (" ", "\\", "%") else None
        if (after is not None and after.startswith("1 ")) or after in ("1%", "1\\%"):
            return inner + after[1:]
    return inner


def _last_number(text: str) -> str | None:
    """Returns the value of the last line that has one; letters alone count if they are all the text."""
    lines = text.split("\n")
    for line in reversed(lines):
        if _MATHS.search(line) and (value := last_value(plain_line(line[-MAX_LINE:]))) is not None:
            return value
    return last_value(plain_line(text)) if len(lines) == 1 and len(text) <= MAX_ANSWER else None
