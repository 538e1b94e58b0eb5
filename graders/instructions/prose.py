"""Finds words, sentences and the language of a text, for instructions on how it is written.

nltk's sentence splitter needs downloaded data, so sentences are found here, by rules.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_CODES = """
ar bg bn ca cs da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr ne nl no pa pl pt ro ru
sk sl so sq sv sw ta te th tl tr uk ur vi zh
"""
LANGUAGES = frozenset(_CODES.split())
"""ISO 639-1 codes that can be told apart (`zh-cn` and `zh-tw` are read as `zh`)."""

NEARLY = 0.25
"""A text counts as written in a language that is at least this share as likely as the likeliest."""

MAX_DETECTED = 8_192
"""Characters that the language is detected from."""

_WORD = re.compile(r"(?:[^\W\d_]\.){2,}|\w+(?:['\u2019\u2010\u2011-]\w+)*")
_BLANK_LINE = re.compile(r"(?:\r?\n[^\S\n]*){2,}")
_STOP = re.compile(r"[.!?]+[\"'”’)\]*_]*")
_LAST_WORD = re.compile(r"[\w.]{1,40}\Z")
_TITLES = frozenset(("mr", "mrs", "ms", "dr", "st", "prof", "capt", "lt", "gen", "rev", "hon", "sr", "jr"))
_SHORTENED = frozenset(("inc", "ltd", "co", "corp", "vs", "etc", "no", "vol", "fig", "dept", "approx", "est"))
_NEXT_WORD = re.compile(r"\s+[\"'“‘(\[*_]*(\w)")


def words(text: str) -> list[str]:
    """Returns the words: runs of letters, digits and underscores, which no apostrophe or hyphen parts.

    `don't` and `well-known` are one word each, as is `U.S.`; marks are none.
    """
    return _WORD.findall(text)


def same_words(text: str) -> list[str]:
    """Returns the words in a form in which case and the kind of apostrophe do not matter."""
    return words(text.casefold().replace("\u2019", "'"))


def paragraphs(text: str) -> list[str]:
    """Returns the pieces that blank lines part. A piece without text is no paragraph."""
    return [piece for piece in _BLANK_LINE.split(text) if piece.strip()]


@lru_cache(maxsize=8)
def sentences(text: str) -> Sequence[str]:
    """Returns the pieces of a text that end in a full stop, question or exclamation mark.

    What follows the last mark is one more. Full stops inside numbers, web addresses and shortened words end
    nothing. Line breaks are white space.
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


def is_written_in(text: str, language: str) -> bool:
    """Tells whether a text is in a language, named by its code. A text without a letter is in none.

    Short texts are often ambiguous, so a language that is `NEARLY` as likely as the likeliest counts too.
    """
    text = text[:MAX_DETECTED]
    if not any(character.isalpha() for character in text):
        return False
    likely = dict(_identifier().rank(text))
    return bool(likely[language.partition("-")[0]] >= NEARLY * max(likely.values()))


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES)
    return identifier
