"""Compares short answers as SQuAD does: case, punctuation, articles and white space are ignored."""

from __future__ import annotations

import re
import string
from collections import Counter

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def plain_words(text: str) -> list[str]:
    """Returns the words that count, in order."""
    return _ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def is_same_answer(text: str, reference: str) -> bool:
    """Tells whether both have the same words in the same order, and at least one."""
    words = plain_words(text)
    return bool(words) and words == plain_words(reference)


def word_f1(text: str, reference: str) -> float:
    """Returns the F1 of the words, 0 to 1, repeats counted; 0 if either has none."""
    words, wanted = plain_words(text), plain_words(reference)
    common = (Counter(words) & Counter(wanted)).total()
    return 2 * common / (len(words) + len(wanted)) if common else 0.0
