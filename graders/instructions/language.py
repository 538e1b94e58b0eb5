"""Tells whether a text is written in a language, all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from graders.instructions.prose import words

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

NEARLY_AKIN = 0.05
"""The same beside a language of its family: a short sentence in Russian may look more like Macedonian."""

MAX_DETECTED = 8_192
"""Characters that the language is detected from."""

FOREIGN = 0.1
"""A piece is in another language if its own is less than this share as likely.

With the two below, 6 of 96,188 pieces of M-IFEval's 6,192 recorded Spanish, French and Japanese answers are;
5 hold another language. Of IFEval's 23 differing verdicts on languages none is wrong for this.
"""
SURELY = 0.5
"""How likely the likeliest language of such a piece must be, of all languages together."""
FEWEST_WORDS, FEWEST_LETTERS = 3, 10
"""Of a piece that is looked at by itself: less may be a name."""

FEWEST_OF_LONGER = 4
"""Letters of a word that has a capital in a name. Shorter ones are often articles and the like."""
AKIN = [
    set(codes.split())
    for codes in (
        "da no sv",
        "cs sk sl hr",
        "bg mk ru uk",
        "hi mr",
        "ja zh",
        "ar fa ur",
        "ca es pt",
        "et fi",
        "lt lv",
    )
]
"""Languages that a single sentence is too short to tell apart."""

ONLY_WRITTEN_ALIKE = ("ja", "zh")
"""Of these, languages that are no family: they share characters."""

FEWEST_INLINE = 5
"""Latin words in a row, within a sentence in another script, that are looked at by themselves."""

_PIECE = re.compile(r"[^.!?\u2026\u3002\uff01\uff1f\n\r()\uff08\uff09\[\]{}|]+")
_NO_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|\[[^\[\]\n]*\]", re.DOTALL)
"""Code, addresses and placeholders."""
_QUOTED = re.compile(r"[\"\u201c\u201e\u00ab][^\"\u201c\u201d\u201e\u00ab\u00bb]*[\"\u201c\u201d\u00bb]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f][A-Za-z\u00c0-\u024f'\u2019,:; -]*")
_OTHER_SCRIPT = re.compile(r"[\u0370-\u1dff\u2e80-\uffef]")
"""Letters of scripts other than Latin's."""
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff]")
"""Letters of scripts that put no space between words."""


def is_written_in(text: str, language: str) -> bool:
    """Tells whether a text is in a language, named by its code. A text without a letter is in none.

    A sentence, line or bracket that surely is in another language makes the text mixed: it is in none. Names,
    code, placeholders in square brackets, and what is quoted within a sentence may be in any.
    """
    language = language.partition("-")[0]
    prose = _NO_PROSE.sub("\n", text[:MAX_DETECTED])
    if not is_mostly_in(prose if words(prose) else text, language):
        return False
    return not any(_is_foreign(piece, language) for piece in _pieces(prose))


def is_mostly_in(text: str, language: str) -> bool:
    """Tells whether a text, taken as a whole, is in a language. A text without a letter is in none.

    Short texts are often ambiguous, so a language that is `NEARLY` as likely as the likeliest counts too.
    """
    if not any(character.isalpha() for character in text[:MAX_DETECTED]):
        return False
    likely = _likely(text)
    likeliest = max(likely, key=likely.__getitem__)
    is_family = _are_akin(language, likeliest) and language not in ONLY_WRITTEN_ALIKE
    nearly = NEARLY_AKIN if is_family else NEARLY
    return likely[language] >= nearly * likely[likeliest]


def _pieces(text: str) -> Iterator[str]:
    for found in _PIECE.finditer(text):
        piece = found[0]
        around = _QUOTED.sub(" ", piece)
        piece = around if words(around) else piece
        if _is_long_enough(piece) and not _is_name(piece):
            yield piece
            yield from _inline(piece)


def _inline(piece: str) -> Iterator[str]:
    """Yields the longer runs of Latin words within a sentence in another script."""
    if piece.isascii() or not _OTHER_SCRIPT.search(piece):
        return
    for run in _LATIN.findall(piece):
        if len(words(run)) >= FEWEST_INLINE and not _is_name(run):
            yield run


def _is_name(piece: str) -> bool:
    """Tells whether all longer words start with a capital: `A People's History of the United States`."""
    longer = [word for word in words(piece) if len(word) >= FEWEST_OF_LONGER]
    return bool(longer) and all(word[0].isupper() for word in longer)


def _is_long_enough(piece: str) -> bool:
    unspaced = len(_UNSPACED.findall(piece))
    letters = sum(map(str.isalpha, piece))
    return letters + unspaced >= FEWEST_LETTERS and len(words(piece)) + unspaced >= FEWEST_WORDS


def _is_foreign(piece: str, language: str) -> bool:
    likeliest, how_likely = _identifier().classify(piece)
    if how_likely < SURELY or likeliest == language or _are_akin(language, likeliest):
        return False
    return bool(_likely(piece)[language] < FOREIGN * how_likely)


def _are_akin(one: str, other: str) -> bool:
    return any({one, other} <= akin for akin in AKIN)


def _likely(text: str) -> dict[str, float]:
    return dict(_identifier().rank(text[:MAX_DETECTED]))


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES)
    return identifier
