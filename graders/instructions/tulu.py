"""Checks Tulu 3's older instruction rows (`func_name`), where they differ from IFEval's."""

from __future__ import annotations

import re

from graders import strict_json
from graders.instructions.ifeval import bullet_count, enclosed
from graders.instructions.prose import paragraphs, same_words, words

_SENTENCE_END = re.compile(r"(?<!\w\.\w.)(?<![A-Z][a-z]\.)(?<=[.?!])\s")


def has_keywords(text: str, keyword_list: list[str]) -> bool:
    """Tells whether each keyword stands in the text, also inside longer words, case ignored."""
    return all(keyword.lower() in text.lower() for keyword in keyword_list)


def word_count_is(text: str, word: str, N: int) -> bool:
    """Tells whether the word stands there exactly N times, as a whole word, case ignored."""
    return same_words(text).count(" ".join(same_words(word))) == N


def has_none_of(text: str, forbidden_words: list[str]) -> bool:
    """Tells whether none of the words stands in the text, not inside longer words either, case ignored."""
    return not any(word.lower() in text.lower() for word in forbidden_words)


def letter_count_is(text: str, letter: str, N: int) -> bool:
    """Tells whether the letter stands there exactly N times, case kept."""
    return text.count(letter) == N


def paragraph_count_is(text: str, N: int) -> bool:
    """Tells whether there are N paragraphs, none of them empty, parted by `* * *`."""
    pieces = text.split("* * *")
    return len(pieces) == N and all(piece.strip() for piece in pieces)


def near(count: int, wanted: int, quantifier: str, tolerance: int) -> bool:
    """Tells whether a count is `at least`, `at most`, or `around` what is wanted.

    `around` is no further away than the tolerance.
    """
    match quantifier:
        case "at least":
            return count >= wanted
        case "at most":
            return count <= wanted
        case _:
            return abs(count - wanted) <= tolerance


def _tenth(wanted: int) -> int:
    return max(round(wanted * 0.1), 1)


def word_count(text: str, N: int, quantifier: str) -> bool:
    """Tells whether the words number `at least`, `at most` or `around` N; around is within a tenth."""
    return near(len(words(text)), N, quantifier, _tenth(N))


def sentence_count(text: str, N: int, quantifier: str) -> bool:
    """Tells whether the sentences number `at least`, `at most` or `around` N; around is within one."""
    return near(len(_SENTENCE_END.split(text)), N, quantifier, 1)


def nth_paragraph_starts(text: str, N: int, first_word: str, i: int) -> bool:
    """Tells whether there are N paragraphs and the i-th, from 1, starts with the word, case kept."""
    found, first = paragraphs(text), words(first_word)
    return len(found) == N and 1 <= i <= N and bool(first) and words(found[i - 1])[: len(first)] == first


def has_postscript(text: str, postscript_marker: str) -> bool:
    """Tells whether the marker stands there, case kept, and something after it."""
    _, marker, after = text.partition(postscript_marker)
    return bool(marker and after.strip())


def has_placeholders(text: str, N: int) -> bool:
    """Tells whether at least N texts stand in square brackets, each on one line."""
    return sum(enclosed(line, "[", "]") for line in text.split("\n")) >= N


def bullet_count_is(text: str, N: int) -> bool:
    """Tells whether there are exactly N bullets, as Markdown has them."""
    return bullet_count(text) == N


def has_choice(text: str, options: list[str]) -> bool:
    """Tells whether the text holds one of the options, case kept."""
    return any(option in text for option in options)


def has_highlights(text: str, N: int) -> bool:
    """Tells whether at least N texts stand between asterisks, each on one line."""
    return sum(enclosed(line, "*", "*") for line in text.split("\n")) >= N


def has_sections(text: str, N: int, section_splitter: str) -> bool:
    """Tells whether there are at least N section marks followed by a number, case ignored."""
    return len(re.findall(rf"{re.escape(section_splitter)}\s?\d+", text, re.IGNORECASE)) >= N


def is_json(text: str) -> bool:
    """Tells whether the whole text is JSON."""
    try:
        strict_json.loads(text)
    except strict_json.StrictJsonError:
        return False
    return True


def starts_with(text: str, original_prompt: str) -> bool:
    """Tells whether the text starts with the request, case kept."""
    return text.startswith(original_prompt)


def is_upper(text: str) -> bool:
    """Tells whether no letter is in lower case."""
    return text == text.upper()


def is_lower(text: str) -> bool:
    """Tells whether no letter is a capital."""
    return text == text.lower()


def capital_word_count(text: str, N: int, quantifier: str) -> bool:
    """Tells whether the words in capitals number `at least`, `at most` or `around` N.

    Around is within a tenth.
    """
    return near(sum(word.isupper() for word in words(text)), N, quantifier, _tenth(N))


def ends_with(text: str, end_phrase: str) -> bool:
    """Tells whether the text ends with the phrase, case kept."""
    return text.endswith(end_phrase)
