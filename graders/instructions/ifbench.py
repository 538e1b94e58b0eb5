"""Checks the 29 instructions that open-instruct added to IFEval's, in linear time."""

from __future__ import annotations

import re
from itertools import pairwise

from graders.instructions.ifeval import compared, divided_paragraphs, filled, occurrences, starts_with_words
from graders.instructions.prose import paragraphs, same_words, sentences, words

_DIVIDER = re.compile(r"\s?(?:\*\*\*|\* \* \*)\s?")
_BRACKETED = re.compile(r"\[[^\[\]\s]+\]")
_OUTER_MARKS = ".,;:!?\"'()\u201c\u201d\u2018\u2019"
_ASCII_LETTER = re.compile(r"[a-zA-Z]")


def repeats_phrase(text: str, phrase: str, small_n: int) -> bool:
    """Tells whether the phrase stands there exactly so often, each time with one word replaced.

    The replaced word is neither the first nor the last.
    """
    wanted = same_words(phrase)
    given = same_words(text)
    found = 0
    for at in range(len(given) - len(wanted) + 1 if wanted else 0):
        piece = given[at : at + len(wanted)]
        if piece[0] == wanted[0] and piece[-1] == wanted[-1]:
            changed = sum(one != other for one, other in zip(piece[1:-1], wanted[1:-1], strict=True))
            if changed != 1:
                return False
            found += 1
    return found == small_n


def is_copy(text: str, prompt_to_repeat: str) -> bool:
    """Tells whether the text is the request and nothing else; case and white space around are ignored."""
    return text.strip().lower() == prompt_to_repeat.strip().lower()


def is_copies(text: str, prompt_to_repeat: str, N: int) -> bool:
    """Tells whether the text is N copies of the request, parted by `******`."""
    copies = text.split("******")
    return len(copies) == N and all(is_copy(copy, prompt_to_repeat) for copy in copies)


def is_span(text: str, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    """Tells whether the text is the request's characters from the first index to before the last."""
    return is_copy(text, prompt_to_repeat[n_start:n_end])


def hyphens_between_sentences(text: str) -> bool:
    """Tells whether each sentence is followed by a hyphen and the next, without white space."""
    pieces = text.strip().split("-")
    whole = sentences(text.replace("-", " "))
    return len(pieces) == len(whole) and all(piece == one for piece, one in zip(pieces, whole, strict=True))


def words_in_brackets(text: str) -> bool:
    """Tells whether each word stands in square brackets of its own; marks may stand outside."""
    return bool(_BRACKETED.search(text)) and not words(_BRACKETED.sub(" ", text))


def bigrams_wrapped(text: str) -> bool:
    """Tells whether words stand in pairs, `<<` before the first and `>>` after the second only.

    A single last word is free.
    """
    given = [word.strip(_OUTER_MARKS) for word in text.split()]
    pairs = zip(given[::2], given[1::2], strict=False)
    return len(given) > 1 and all(_is_wrapped(one, two) for one, two in pairs)


def _is_wrapped(one: str, two: str) -> bool:
    return one.startswith("<<") and two.endswith(">>") and ">>" not in one and "<<" not in two


def no_consecutive_initials(text: str) -> bool:
    """Tells whether no word starts with the letter after the initial of the word before it, case ignored."""
    initials = [word[0] for word in same_words(text)]
    return all(ord(two) - ord(one) != 1 for one, two in pairwise(initials))


def keyword_once(text: str, keyword: str) -> bool:
    """Tells whether the keyword stands there exactly once."""
    return occurrences(text, keyword) == 1


def has_no_word(text: str, keyword: str) -> bool:
    """Tells whether the keyword is absent as a whole word.

    Case, and whatever punctuation stands around it, are ignored.
    """
    return not re.search(rf"(?<!\w){re.escape(keyword)}(?!\w)", text, re.IGNORECASE)


def two_divided_paragraphs(text: str) -> bool:
    """Tells whether there are exactly two paragraphs between dividers `***`."""
    return divided_paragraphs(text, 2)


def two_paragraphs(text: str) -> bool:
    """Tells whether there are two paragraphs parted by blank lines."""
    return len(paragraphs(text)) == 2


def sentences_start_with(text: str, first_word: str) -> bool:
    """Tells whether there are sentences and each starts with the word, case ignored."""
    found = _worded_sentences(text)
    return bool(found) and all(starts_with_words(one, first_word) for one in found)


def _worded_sentences(text: str) -> list[str]:
    """Returns the sentences that have a word; marks alone are no sentence."""
    return [one for one in sentences(text) if words(one)]


def starts_with_word(text: str, first_word: str) -> bool:
    """Tells whether the first word is this one, case ignored."""
    return starts_with_words(text, first_word)


def sentences_end_with(text: str, last_word: str) -> bool:
    """Tells whether there are sentences and each ends with the word, case and marks ignored."""
    found = _worded_sentences(text)
    return bool(found) and all(ends_with_word(one, last_word) for one in found)


def ends_with_word(text: str, last_word: str) -> bool:
    """Tells whether the last word is this one, case and marks ignored."""
    last = same_words(last_word)
    return bool(last) and same_words(text)[-len(last) :] == last


def has_no_dot(text: str) -> bool:
    """Tells whether there is no full stop anywhere."""
    return "." not in text


def has_no_exclamation(text: str) -> bool:
    """Tells whether there is no exclamation mark anywhere."""
    return "!" not in text


def few_lowercase_words(text: str, N: int) -> bool:
    """Tells whether at most N words are all in lower case."""
    return sum(word.islower() for word in words(text)) <= N


def ascii_letter_count(text: str, N: int, relation: str) -> bool:
    """Tells whether the ASCII letters are fewer than N, or at least N, as the relation says."""
    return compared(len(_ASCII_LETTER.findall(text)), relation, N)


def counted_composition(text: str, n_sent: int, n_words: int) -> bool:
    """Tells whether there are three paragraphs between dividers, each of so many sentences.

    Each sentence has so many words.
    """
    paragraphs = [one for one in _DIVIDER.split(text) if one.strip()]
    if filled(_DIVIDER.split(text)) != 3:
        return False
    for paragraph in paragraphs:
        found = _worded_sentences(paragraph)
        if len(found) != n_sent or any(len(words(one)) != n_words for one in found):
            return False
    return True


def words_are_unique(text: str) -> bool:
    """Tells whether no word stands twice, case ignored."""
    found = same_words(text)
    return len(found) == len(set(found))


def keyword_once_and_twice(text: str, keyword1: str, keyword2: str) -> bool:
    """Tells whether the first keyword stands there exactly once and the second exactly twice."""
    return occurrences(text, keyword1) == 1 and occurrences(text, keyword2) == 2


def has_palindrome(text: str) -> bool:
    """Tells whether a word of two letters or more reads the same backwards.

    Case, and marks around the word, are ignored.
    """
    return any(len(word) > 1 and word.isalpha() and word == word[::-1] for word in same_words(text))


def keyword_at(text: str, keyword: str, n: int, m: int) -> bool:
    """Tells whether the keyword is the m-th word of the n-th sentence; both count from 1. Case is ignored."""
    found = _worded_sentences(text)
    wanted = same_words(keyword)
    if not (wanted and 1 <= n <= len(found) and m >= 1):
        return False
    return same_words(found[n - 1])[m - 1 : m - 1 + len(wanted)] == wanted


def starts_as_it_ends(text: str) -> bool:
    """Tells whether the first and the last of two words or more are the same, case ignored."""
    found = same_words(text)
    return len(found) > 1 and found[0] == found[-1]
