"""Checks IFEval's 25 instructions (Zhou et al. 2023). Each check takes linear time in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from graders import strict_json
from graders.instructions.language import is_mostly_in, is_written_in
from graders.instructions.prose import paragraphs, same_words, sentences, words

CONSTRAINED_RESPONSES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")

_DIVIDER = re.compile(r"\s?\*\*\*\s?")
_HIGHLIGHT = re.compile(r"\*[^\n*]*\*")
_DOUBLE_HIGHLIGHT = re.compile(r"\*\*[^\n*]*\*\*")
_POSSESSIVE = ("'s", "\u2019s")
_FENCE = re.compile(r"```(?:json)?", re.IGNORECASE)
_BULLET = re.compile(r"\s*[-+*][ \t]+\S")
_RULE = re.compile(r"\s*([-*_])(?:[ \t]*\1){2,}\s*")
_FENCE_LINE = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*(\w*)")
_NO_CODE = frozenset(("markdown", "md", "text", "plaintext", "txt"))


def compared(count: int, relation: str, wanted: int) -> bool:
    """Tells whether a count is `less than` what is wanted, or `at least` that, as the relation says."""
    return count < wanted if relation == "less than" else count >= wanted


def occurrences(text: str, keyword: str) -> int:
    """Counts how often a keyword stands in a text, case ignored, also inside longer words."""
    return text.casefold().count(keyword.casefold())


def has_keywords(text: str, keywords: list[str]) -> bool:
    """Tells whether each keyword stands in the text, also inside longer words, case ignored."""
    return all(occurrences(text, keyword) for keyword in keywords)


def keyword_count(text: str, keyword: str, frequency: int, relation: str) -> bool:
    """Tells whether the keyword stands there `less than` or `at least` so often, as the relation says."""
    return compared(occurrences(text, keyword), relation, frequency)


def has_no_words(text: str, forbidden_words: list[str]) -> bool:
    """Tells whether none of the words stands in the text as a whole word, case ignored."""
    return not any(
        re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in forbidden_words
    )


def letter_count(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    """Tells whether the letter stands there `less than` or `at least` so often, case ignored."""
    return compared(text.lower().count(letter.lower()), let_relation, let_frequency)


def is_in_language(text: str, language: str) -> bool:
    """Tells whether the text is written in the language of that ISO 639-1 code."""
    return is_written_in(text, language)


def sentence_count(text: str, num_sentences: int, relation: str) -> bool:
    """Tells whether there are `less than` or `at least` so many sentences, as the relation says."""
    return compared(len(sentences(text)), relation, num_sentences)


def divided_paragraphs(text: str, num_paragraphs: int) -> bool:
    """Tells whether there are exactly so many paragraphs between dividers `***`.

    An empty first or last one does not count.
    """
    return filled(_DIVIDER.split(text)) == num_paragraphs


def filled(pieces: list[str]) -> int | None:
    """Returns how many pieces have text; None if an empty one stands between others."""
    count = len(pieces)
    for at, piece in enumerate(pieces):
        if not piece.strip():
            if 0 < at < len(pieces) - 1:
                return None
            count -= 1
    return count


def word_count(text: str, num_words: int, relation: str) -> bool:
    """Tells whether there are `less than` or `at least` so many words, as the relation says."""
    return compared(len(words(text)), relation, num_words)


def nth_paragraph_starts(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Tells whether there are exactly so many paragraphs, and the nth starts with the word, case ignored.

    Paragraphs are parted by blank lines and count from 1.
    """
    found = paragraphs(text)
    is_there = len(found) == num_paragraphs and 1 <= nth_paragraph <= num_paragraphs
    return is_there and starts_with_words(found[nth_paragraph - 1], first_word)


def starts_with_words(text: str, wanted: str) -> bool:
    """Tells whether a text's first words are these; case, and marks around words, are ignored."""
    first = same_words(wanted)
    return bool(first) and same_words(text)[: len(first)] == first


def has_placeholders(text: str, num_placeholders: int) -> bool:
    """Tells whether at least so many texts stand in square brackets, each on one line."""
    found = 0
    for line in text.split("\n"):
        found += enclosed(line, "[", "]")
    return found >= num_placeholders


def enclosed(line: str, opening: str, closing: str) -> int:
    """Counts the texts between an opening and the next closing mark."""
    count = position = 0
    while (start := line.find(opening, position)) >= 0 and (end := line.find(closing, start + 1)) >= 0:
        count, position = count + 1, end + len(closing)
    return count


def has_postscript(text: str, postscript_marker: str) -> bool:
    """Tells whether the marker stands somewhere, case ignored.

    In `P.S.` and `P.P.S` there may be a space after each full stop.
    """
    pattern = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}.get(postscript_marker)
    return re.search(pattern or re.escape(postscript_marker), text, re.IGNORECASE) is not None


def has_bullets(text: str, num_bullets: int) -> bool:
    """Tells whether there are exactly so many bullets, as Markdown has them."""
    return bullet_count(text) == num_bullets


def bullet_count(text: str) -> int:
    """Counts the lines that start with a mark `*`, `-` or `+`, white space, and a text (CommonMark, 5.2).

    A rule such as `* * *` is none, and neither is a line of a code block between fences. Fences may stand
    around the whole text, or around what they say is Markdown.
    """
    count, fence, is_code = 0, "", False
    for at, line in enumerate(text.strip().split("\n")):
        mark = _FENCE_LINE.match(line)
        if mark and not fence:
            fence, label = mark[1], mark[2].lower()
            is_code = label not in _NO_CODE if label else at > 0
        elif mark and mark[1].startswith(fence) and not mark[2]:
            fence, is_code = "", False
        elif not is_code and _BULLET.match(line) and not _RULE.fullmatch(line):
            count += 1
    return count


def is_constrained_response(text: str) -> bool:
    """Tells whether the text holds one of `CONSTRAINED_RESPONSES`."""
    return any(option in text for option in CONSTRAINED_RESPONSES)


def has_highlights(text: str, num_highlights: int) -> bool:
    """Tells whether at least so many texts stand between asterisks, or pairs of asterisks."""
    single = sum(1 for found in _HIGHLIGHT.findall(text) if found.strip("*").strip())
    double = sum(1 for found in _DOUBLE_HIGHLIGHT.findall(text) if found.strip("*").strip())
    return single + double >= num_highlights


def has_sections(text: str, section_spliter: str, num_sections: int) -> bool:
    """Tells whether there are at least so many section marks followed by a number."""
    return len(re.findall(rf"{re.escape(section_spliter)}\s?\d+", text)) >= num_sections


def is_json(text: str) -> bool:
    """Tells whether the whole text is JSON; it may stand in a code fence."""
    inner = text.strip()
    if opened := _FENCE.match(inner):
        inner = inner[opened.end() :]
    try:
        strict_json.loads(inner.removesuffix("```").strip())
    except strict_json.StrictJsonError:
        return False
    return True


def has_title(text: str) -> bool:
    """Tells whether a text stands in double angular brackets, on one line."""
    return any(_titles(text))


def _titles(text: str) -> Iterator[bool]:
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        yield 0 <= start < end and bool(line[start:end].strip("<>").strip())


def two_responses(text: str) -> bool:
    """Tells whether there are two different texts parted by `******`."""
    pieces = text.split("******")
    texts = [piece.strip() for piece in pieces if piece.strip()]
    return filled(pieces) == 2 and texts[0] != texts[1]


def starts_with_prompt(text: str, prompt_to_repeat: str) -> bool:
    """Tells whether the text starts with the request, case and white space around ignored."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def ends_with(text: str, end_phrase: str) -> bool:
    """Tells whether the text ends with the phrase; case, and quotation marks around the text, are ignored."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def is_quoted(text: str) -> bool:
    """Tells whether the whole text stands in double quotation marks."""
    plain = text.strip()
    return len(plain) > 1 and plain[0] == plain[-1] == '"'


def capital_word_count(text: str, capital_frequency: int, capital_relation: str) -> bool:
    """Tells whether there are `less than` or `at least` so many words in capitals.

    Such a word has no lower-case letter, but for the `s` of `NASA's`.
    """
    return compared(sum(map(_is_capital, words(text))), capital_relation, capital_frequency)


def _is_capital(word: str) -> bool:
    return word.isupper() or (word.endswith(_POSSESSIVE) and word[:-2].isupper())


def is_english_upper(text: str) -> bool:
    """Tells whether the text is English, all in capitals."""
    return text.isupper() and is_mostly_in(text, "en")


def is_english_lower(text: str) -> bool:
    """Tells whether the text is English, all in lower case."""
    return text.islower() and is_mostly_in(text, "en")


def has_no_comma(text: str) -> bool:
    """Tells whether there is no comma anywhere."""
    return "," not in text
