"""The checks of Tulu 3's older instruction rows (`func_name`), where they differ from IFEval's."""

from __future__ import annotations

import re

from graders import strict_json
from graders.instructions.ifeval import enclosed

_WORD = re.compile(r"\b\w+\b")
_CAPITAL_WORD = re.compile(r"\b[A-Z]+\b")
_SENTENCE_END = re.compile(r"(?<!\w\.\w.)(?<![A-Z][a-z]\.)(?<=[.?!])\s")


def has_keywords(text: str, keyword_list: list[str]) -> bool:
    return all(keyword.lower() in text.lower() for keyword in keyword_list)


def word_count_is(text: str, word: str, N: int) -> bool:
    return _WORD.findall(text.lower()).count(word.lower()) == N


def has_none_of(text: str, forbidden_words: list[str]) -> bool:
    """Not inside longer words either."""
    return not any(word.lower() in text.lower() for word in forbidden_words)


def letter_count_is(text: str, letter: str, N: int) -> bool:
    return text.count(letter) == N


def paragraph_count_is(text: str, N: int) -> bool:
    """Paragraphs, none of them empty, parted by `* * *`."""
    pieces = text.split("* * *")
    return len(pieces) == N and all(piece.strip() for piece in pieces)


def near(count: int, wanted: int, quantifier: str, tolerance: int) -> bool:
    """`at least`, `at most`, or `around`: no further away than the tolerance."""
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
    return near(len(text.split()), N, quantifier, _tenth(N))


def sentence_count(text: str, N: int, quantifier: str) -> bool:
    return near(len(_SENTENCE_END.split(text)), N, quantifier, 1)


def nth_paragraph_starts(text: str, N: int, first_word: str, i: int) -> bool:
    paragraphs = text.split("\n\n")
    return len(paragraphs) == N and 1 <= i <= N and paragraphs[i - 1].strip().startswith(first_word)


def has_postscript(text: str, postscript_marker: str) -> bool:
    """The marker, and something after it."""
    _, marker, after = text.partition(postscript_marker)
    return bool(marker and after.strip())


def has_placeholders(text: str, N: int) -> bool:
    return sum(enclosed(line, "[", "]") for line in text.split("\n")) >= N


def bullet_count_is(text: str, N: int) -> bool:
    return sum(1 for line in text.split("\n") if line.strip().startswith(("*", "-"))) == N


def has_choice(text: str, options: list[str]) -> bool:
    return any(option in text for option in options)


def has_highlights(text: str, N: int) -> bool:
    return sum(enclosed(line, "*", "*") for line in text.split("\n")) >= N


def has_sections(text: str, N: int, section_splitter: str) -> bool:
    return len(re.findall(rf"{re.escape(section_splitter)}\s?\d+", text, re.IGNORECASE)) >= N


def is_json(text: str) -> bool:
    try:
        strict_json.loads(text)
    except strict_json.StrictJsonError:
        return False
    return True


def starts_with(text: str, original_prompt: str) -> bool:
    return text.startswith(original_prompt)


def is_upper(text: str) -> bool:
    return text == text.upper()


def is_lower(text: str) -> bool:
    return text == text.lower()


def capital_word_count(text: str, N: int, quantifier: str) -> bool:
    return near(len(_CAPITAL_WORD.findall(text)), N, quantifier, _tenth(N))


def ends_with(text: str, end_phrase: str) -> bool:
    return text.endswith(end_phrase)
