"""Finds the words, sentences and paragraphs of a text, for instructions on how it is written.

nltk's sentence splitter needs downloaded data, so sentences are found here, by rules.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import regex

CACHED_TEXTS = 32
"""Texts whose words are kept: the instructions of a row all ask for the same ones."""

_LETTERS = r"[\p{L}\p{M}\p{N}]+"
_WORD = regex.compile(
    rf"(?:\p{{L}}\.){{2,}}"
    rf"|{_LETTERS}(?:['\u2019\u2010\u2011\u200c\u200d_-]{_LETTERS}|(?<=[0-9])[.,](?=[0-9]){_LETTERS})*"
)
_BLANK_LINE = re.compile(r"(?:\r?\n[^\S\n]*){2,}")
_STOP = re.compile(r"[.!?]+[\"'”’)\]*_]*")
_LAST_WORD = re.compile(r"[\w.]{1,40}\Z")
_TITLES = frozenset(("mr", "mrs", "ms", "dr", "st", "prof", "capt", "lt", "gen", "rev", "hon", "sr", "jr"))
_SHORTENED = frozenset(("inc", "ltd", "co", "corp", "vs", "etc", "no", "vol", "fig", "dept", "approx", "est"))
_ENUMERATOR = re.compile(r"\s*[*_(]*(?:[0-9]{1,3}|[a-z])")
"""What numbers the items of a list: `1.` ends no sentence where it begins one."""
_NEXT_WORD = re.compile(r"\s+[\"'“‘(\[*_]*(\w)")


@lru_cache(maxsize=CACHED_TEXTS)
def words(text: str) -> Sequence[str]:
    """Returns the words: runs of letters and digits, which no apostrophe, hyphen or underscore parts.

    `don't` and `well-known` are one word each, as are `U.S.` and `1,234.5`; marks are none.
    """
    return tuple(_WORD.findall(text))


@lru_cache(maxsize=CACHED_TEXTS)
def same_words(text: str) -> Sequence[str]:
    """Returns the words in a form in which case and the kind of apostrophe do not matter."""
    return words(text.casefold().replace("\u2019", "'"))


def paragraphs(text: str) -> list[str]:
    """Returns the pieces that blank lines part. A piece without text is no paragraph."""
    return [piece for piece in _BLANK_LINE.split(text) if piece.strip()]


@lru_cache(maxsize=CACHED_TEXTS)
def sentences(text: str) -> Sequence[str]:
    """Returns the pieces of a text that end in a full stop, question or exclamation mark.

    What follows the last mark is one more. Full stops inside numbers, web addresses and shortened words, and
    behind the number of a list's item, end nothing. Line breaks are white space.
    """
    flat = " ".join(text.split())
    found: list[str] = []
    start = 0
    for stop in _STOP.finditer(flat):
        if _ends_sentence(flat, start, stop):
            found.append(flat[start : stop.end()].strip())
            start = stop.end()
    if rest := flat[start:].strip():
        found.append(rest)
    return tuple(found)


def _ends_sentence(flat: str, start: int, stop: re.Match[str]) -> bool:
    marks = stop[0].rstrip("\"'”’)]*_")
    if marks != ".":
        return True
    if _ENUMERATOR.fullmatch(flat, start, stop.start()):
        return False
    after = flat[stop.end() : stop.end() + 1]
    word = _LAST_WORD.search(flat, max(start, stop.start() - 40), stop.start())
    before = word[0].rpartition(" ")[2] if word else ""
    if after and not after.isspace():
        return before[-1:].islower() and len(before) > 1 and "." not in before and after.isupper()
    if not after:
        return True
    follows = _NEXT_WORD.match(flat, stop.end())
    is_new_start = follows is not None and follows[1].isupper()
    low = before.lower()
    if low in _TITLES or (len(before) == 1 and before.isalpha() and before != "I"):
        return False
    if low in _SHORTENED or "." in before:
        return is_new_start
    return True
