"""Checks the 29 instructions that open-instruct added to IFEval's, in linear time."""

from __future__ import annotations

import re
from itertools import pairwise

from graders.instructions.ifeval import compared, divided_paragraphs, filled, occurrences
from graders.instructions.prose import sentences, tokens

_DIVIDER = re.compile(r"\s?(?:\*\*\*|\* \* \*)\s?")
_NOT_WORD = re.compile(r"[^\w\s]")
_LOWERCASE_WORD = re.compile(r"\b[a-z]+\b")
_ASCII_LETTER = re.compile(r"[a-zA-Z]")


def repeats_phrase(text: str, phrase: str, small_n: int) -> bool:
    """Tells whether the phrase stands there exactly so often, each time with one word replaced.

    The replaced word is neither the first nor the last.
    """
    wanted = phrase.split()
    given = text.split()
    found = 0
    for at in range(len(given) - len(wanted) + 1):
        piece = [_bare(word, at_end) for at_end, word in _ends(given[at : at + len(wanted)])]
        if piece[0] == wanted[0] and piece[-1] == _bare(wanted[-1], True):
            changed = sum(one != other for one, other in zip(piece[1:-1], wanted[1:-1], strict=True))
            if changed != 1:
                return False
            found += 1
    return found == small_n


def _ends(piece: list[str]) -> list[tuple[bool, str]]:
    return [(at == len(piece) - 1, word) for at, word in enumerate(piece)]


def _bare(word: str, at_end: bool) -> str:
    return word.rstrip(".,;:!?\"'”’)") if at_end else word.lstrip("\"'“‘(*")


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
    """Tells whether each word stands in square brackets."""
    return all(word.startswith("[") and word.endswith("]") for word in text.split())


def bigrams_wrapped(text: str) -> bool:
    """Tells whether words stand in pairs, `<<` before the first and `>>` after the second only.

    A single last word is free.
    """
    given = text.split()
    pairs = zip(given[::2], given[1::2], strict=False)
    return len(given) > 1 and all(_is_wrapped(one, two) for one, two in pairs)


def _is_wrapped(one: str, two: str) -> bool:
    return one.startswith("<<") and two.endswith(">>") and ">>" not in one and "<<" not in two


def no_consecutive_initials(text: str) -> bool:
    """Tells whether no word starts with the letter after the initial of the word before it, case ignored."""
    initials = [word[0].lower()[:1] for word in text.split()]
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
    """Tells whether there are two paragraphs parted by an empty line."""
    return filled(text.split("\n\n")) == 2


def sentences_start_with(text: str, first_word: str) -> bool:
    """Tells whether there are sentences and each starts with the word, case ignored."""
    found = sentences(text)
    return bool(found) and all(one.split()[0].lower() == first_word.lower() for one in found)


def starts_with_word(text: str, first_word: str) -> bool:
    """Tells whether the first word is this one, case ignored."""
    given = text.split(maxsplit=1)
    return bool(given) and given[0].lower() == first_word.lower()


def sentences_end_with(text: str, last_word: str) -> bool:
    """Tells whether there are sentences and each ends with the word, case and marks ignored."""
    found = sentences(text)
    return bool(found) and all(_last_word(one) == last_word.lower() for one in found)


def ends_with_word(text: str, last_word: str) -> bool:
    """Tells whether the last word is this one, case and marks ignored."""
    return bool(text.strip()) and _last_word(text) == last_word.lower()


def _last_word(text: str) -> str:
    return _NOT_WORD.sub("", text.split()[-1]).lower()


def has_no_dot(text: str) -> bool:
    """Tells whether there is no full stop anywhere."""
    return "." not in text


def has_no_exclamation(text: str) -> bool:
    """Tells whether there is no exclamation mark anywhere."""
    return "!" not in text


def few_lowercase_words(text: str, N: int) -> bool:
    """Tells whether at most N words are all in lower-case ASCII letters."""
    return len(_LOWERCASE_WORD.findall(text)) <= N


def ascii_letter_count(text: str, N: int, relation: str) -> bool:
    """Tells whether the ASCII letters are fewer than N, or at least N, as the relation says."""
    return compared(len(_ASCII_LETTER.findall(text)), relation, N)


def counted_composition(text: str, n_sent: int, n_words: int) -> bool:
    """Tells whether there are three paragraphs between dividers, each of so many sentences and tokens.

    Each sentence has `n_words` tokens, of which marks are some too.
    """
    paragraphs = [one for one in _DIVIDER.split(text) if one.strip()]
    if filled(_DIVIDER.split(text)) != 3:
        return False
    for paragraph in paragraphs:
        found = sentences(paragraph)
        if len(found) != n_sent or any(len(tokens(one)) != n_words for one in found):
            return False
    return True


def words_are_unique(text: str) -> bool:
    """Tells whether no token stands twice, case kept; a mark such as a comma or full stop is a token too."""
    found = tokens(text)
    return len(found) == len(set(found))


def keyword_once_and_twice(text: str, keyword1: str, keyword2: str) -> bool:
    """Tells whether the first keyword stands there exactly once and the second exactly twice."""
    return occurrences(text, keyword1) == 1 and occurrences(text, keyword2) == 2


def has_palindrome(text: str) -> bool:
    """Tells whether a word of two letters or more reads the same backwards.

    Case, and marks around the word, are ignored.
    """
    plain = (_NOT_WORD.sub("", word).lower() for word in text.split())
    return any(len(word) > 1 and word.isalpha() and word == word[::-1] for word in plain)


def keyword_at(text: str, keyword: str, n: int, m: int) -> bool:
    """Tells whether the keyword is the m-th token of the n-th sentence; both count from 1."""
    found = sentences(text)
    if not (1 <= n <= len(found) and m >= 1):
        return False
    given = tokens(found[n - 1])
    return m <= len(given) and given[m - 1] == keyword


def starts_as_it_ends(text: str) -> bool:
    """Tells whether the first and the last of two tokens or more are the same, case ignored."""
    found = tokens(text)
    return len(found) > 1 and found[0].lower() == found[-1].lower()
