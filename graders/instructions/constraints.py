"""Verifiable constraints on how an answer is written: what each is called, its arguments and its check.

Ids and meanings are IFEval's (Zhou et al. 2023, arXiv:2311.07911, 25 of them), those that open-instruct added
(29), and with the prefix `tulu:` the 25 functions of its older rows. Departures, each for a reason that a
policy would find: keywords are text, not regular expressions; an argument that is left out is a fault of the
data, where the originals draw one at random; a text without a letter is written in no language.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graders.instructions import ifbench as more
from graders.instructions import ifeval, tulu
from graders.instructions.prose import LANGUAGES

RELATIONS = ("less than", "at least")
QUANTIFIERS = ("at least", "around", "at most")

Reader = Callable[[Any], Any]
"""Reads an argument as it stands in the data. Raises `ValueError` with what was expected."""


class ConstraintInvalid(ValueError):
    """A constraint that is not known, or whose arguments do not fit. `param` says which of the two."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 0:
        raise ValueError("a whole number")
    return int(value)


def _text(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or not value.strip():
        raise ValueError("text")
    return value.strip()


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
        raise ValueError("a list of texts")
    return value


def _letter(value: Any) -> str:
    if not isinstance(value, str) or len(value.strip()) != 1:
        raise ValueError("one character")
    return value.strip()


def _language(value: Any) -> str:
    if not isinstance(value, str) or value.lower().partition("-")[0] not in LANGUAGES:
        raise ValueError(f"the code of a language that can be detected ({', '.join(sorted(LANGUAGES))})")
    return value.lower()


def _among(*known: str) -> Reader:
    def read(value: Any) -> str:
        if value not in known:
            raise ValueError(" or ".join(repr(one) for one in known))
        return str(value)

    return read


_relation = _among(*RELATIONS)
_quantifier = _among(*QUANTIFIERS)


@dataclass(frozen=True)
class Constraint:
    """A check, called with the answer and the arguments by name; each argument has its reader."""

    check: Callable[..., bool]
    takes: Mapping[str, Reader] = field(default_factory=dict)


Check = Callable[[str], bool]
"""A constraint with its arguments: takes the answer, says whether it is met."""


def bound(constraint_id: str, arguments: Mapping[str, Any] | None) -> Check:
    """A constraint with its arguments read; arguments that are null do not count as given.

    Raises `ConstraintInvalid` for an unknown id, and for arguments that are missing, unknown or unfit.
    """
    constraint = CONSTRAINTS.get(constraint_id)
    if constraint is None:
        raise ConstraintInvalid(
            f"unknown constraint '{constraint_id[:80]}'; docs/graders.md lists those that are known.", "id"
        )
    given = {name: value for name, value in (arguments or {}).items() if value is not None}
    if strange := sorted(given.keys() - constraint.takes.keys()):
        raise ConstraintInvalid(f"{constraint_id} takes no '{strange[0][:60]}'.", "kwargs")
    if missing := sorted(constraint.takes.keys() - given.keys()):
        raise ConstraintInvalid(f"{constraint_id} needs '{missing[0]}'.", "kwargs")
    read = {name: _read(constraint_id, name, given[name], constraint.takes[name]) for name in given}
    return lambda text: constraint.check(text, **read)


def _read(constraint_id: str, name: str, value: Any, reader: Reader) -> Any:
    try:
        return reader(value)
    except (ValueError, OverflowError) as fault:
        raise ConstraintInvalid(
            f"the '{name}' of {constraint_id} must be {fault}, not {str(value)[:60]!r}.", "kwargs"
        ) from None


_IFEVAL = {
    "keywords:existence": Constraint(ifeval.has_keywords, {"keywords": _texts}),
    "keywords:frequency": Constraint(
        ifeval.keyword_count, {"keyword": _text, "frequency": _count, "relation": _relation}
    ),
    "keywords:forbidden_words": Constraint(ifeval.has_no_words, {"forbidden_words": _texts}),
    "keywords:letter_frequency": Constraint(
        ifeval.letter_count, {"letter": _letter, "let_frequency": _count, "let_relation": _relation}
    ),
    "language:response_language": Constraint(ifeval.is_in_language, {"language": _language}),
    "length_constraints:number_sentences": Constraint(
        ifeval.sentence_count, {"num_sentences": _count, "relation": _relation}
    ),
    "length_constraints:number_paragraphs": Constraint(ifeval.divided_paragraphs, {"num_paragraphs": _count}),
    "length_constraints:number_words": Constraint(
        ifeval.word_count, {"num_words": _count, "relation": _relation}
    ),
    "length_constraints:nth_paragraph_first_word": Constraint(
        ifeval.nth_paragraph_starts,
        {"num_paragraphs": _count, "nth_paragraph": _count, "first_word": _text},
    ),
    "detectable_content:number_placeholders": Constraint(
        ifeval.has_placeholders, {"num_placeholders": _count}
    ),
    "detectable_content:postscript": Constraint(ifeval.has_postscript, {"postscript_marker": _text}),
    "detectable_format:number_bullet_lists": Constraint(ifeval.has_bullets, {"num_bullets": _count}),
    "detectable_format:constrained_response": Constraint(ifeval.is_constrained_response),
    "detectable_format:number_highlighted_sections": Constraint(
        ifeval.has_highlights, {"num_highlights": _count}
    ),
    "detectable_format:multiple_sections": Constraint(
        ifeval.has_sections, {"section_spliter": _text, "num_sections": _count}
    ),
    "detectable_format:json_format": Constraint(ifeval.is_json),
    "detectable_format:title": Constraint(ifeval.has_title),
    "combination:two_responses": Constraint(ifeval.two_responses),
    "combination:repeat_prompt": Constraint(ifeval.starts_with_prompt, {"prompt_to_repeat": _text}),
    "startend:end_checker": Constraint(ifeval.ends_with, {"end_phrase": _text}),
    "startend:quotation": Constraint(ifeval.is_quoted),
    "change_case:capital_word_frequency": Constraint(
        ifeval.capital_word_count, {"capital_frequency": _count, "capital_relation": _relation}
    ),
    "change_case:english_capital": Constraint(ifeval.is_english_upper),
    "change_case:english_lowercase": Constraint(ifeval.is_english_lower),
    "punctuation:no_comma": Constraint(ifeval.has_no_comma),
}

_MORE = {
    "copy:repeat_phrase": Constraint(more.repeats_phrase, {"phrase": _text, "small_n": _count}),
    "copy:copy": Constraint(more.is_copy, {"prompt_to_repeat": _text}),
    "copy:copying_simple": Constraint(more.is_copy, {"prompt_to_repeat": _text}),
    "copy:copying_multiple": Constraint(more.is_copies, {"prompt_to_repeat": _text, "N": _count}),
    "new:copy_span_idx": Constraint(
        more.is_span, {"prompt_to_repeat": _text, "n_start": _count, "n_end": _count}
    ),
    "detectable_format:sentence_hyphens": Constraint(more.hyphens_between_sentences),
    "detectable_format:square_brackets": Constraint(more.words_in_brackets),
    "detectable_format:bigram_wrapping": Constraint(more.bigrams_wrapped),
    "keywords:no_adjacent_consecutive": Constraint(more.no_consecutive_initials),
    "keywords:word_once": Constraint(more.keyword_once, {"keyword": _text}),
    "keywords:word_count_different_numbers": Constraint(
        ifeval.keyword_count, {"keyword": _text, "frequency": _count, "relation": _relation}
    ),
    "keywords:exclude_word_harder": Constraint(more.has_no_word, {"keyword": _text}),
    "keywords:palindrome": Constraint(more.has_palindrome),
    "keywords:keyword_specific_position": Constraint(
        more.keyword_at, {"keyword": _text, "n": _count, "m": _count}
    ),
    "keywords:start_end": Constraint(more.starts_as_it_ends),
    "paragraphs:paragraphs": Constraint(more.two_divided_paragraphs),
    "paragraphs:paragraphs2": Constraint(more.two_paragraphs),
    "first_word:first_word_sent": Constraint(more.sentences_start_with, {"first_word": _text}),
    "first_word:first_word_answer": Constraint(more.starts_with_word, {"first_word": _text}),
    "last_word:last_word_sent": Constraint(more.sentences_end_with, {"last_word": _text}),
    "last_word:last_word_answer": Constraint(more.ends_with_word, {"last_word": _text}),
    "punctuation:punctuation_dot": Constraint(more.has_no_dot),
    "punctuation:punctuation_exclamation": Constraint(more.has_no_exclamation),
    "count:lowercase_counting": Constraint(more.few_lowercase_words, {"N": _count}),
    "count:counting_composition": Constraint(more.counted_composition, {"n_sent": _count, "n_words": _count}),
    "count:count_unique": Constraint(more.words_are_unique),
    "count:count_increment_word": Constraint(
        more.keyword_once_and_twice, {"keyword1": _text, "keyword2": _text}
    ),
    "letters:letter_counting": Constraint(more.ascii_letter_count, {"N": _count, "relation": _relation}),
    "letters:letter_counting2": Constraint(
        ifeval.letter_count, {"letter": _letter, "let_frequency": _count, "let_relation": _relation}
    ),
}

_TULU = {
    "verify_keywords": Constraint(tulu.has_keywords, {"keyword_list": _texts}),
    "verify_keyword_frequency": Constraint(tulu.word_count_is, {"word": _text, "N": _count}),
    "validate_forbidden_words": Constraint(tulu.has_none_of, {"forbidden_words": _texts}),
    "verify_letter_frequency": Constraint(tulu.letter_count_is, {"letter": _letter, "N": _count}),
    "validate_response_language": Constraint(ifeval.is_in_language, {"language": _language}),
    "verify_paragraph_count": Constraint(tulu.paragraph_count_is, {"N": _count}),
    "validate_word_constraint": Constraint(tulu.word_count, {"N": _count, "quantifier": _quantifier}),
    "verify_sentence_constraint": Constraint(tulu.sentence_count, {"N": _count, "quantifier": _quantifier}),
    "validate_paragraphs": Constraint(
        tulu.nth_paragraph_starts, {"N": _count, "first_word": _text, "i": _count}
    ),
    "verify_postscript": Constraint(tulu.has_postscript, {"postscript_marker": _text}),
    "validate_placeholders": Constraint(tulu.has_placeholders, {"N": _count}),
    "verify_bullet_points": Constraint(tulu.bullet_count_is, {"N": _count}),
    "validate_title": Constraint(ifeval.has_title),
    "validate_choice": Constraint(tulu.has_choice, {"options": _texts}),
    "validate_highlighted_sections": Constraint(tulu.has_highlights, {"N": _count}),
    "validate_sections": Constraint(tulu.has_sections, {"N": _count, "section_splitter": _text}),
    "validate_json_format": Constraint(tulu.is_json),
    "validate_repeat_prompt": Constraint(tulu.starts_with, {"original_prompt": _text}),
    "validate_two_responses": Constraint(ifeval.two_responses),
    "validate_uppercase": Constraint(tulu.is_upper),
    "validate_lowercase": Constraint(tulu.is_lower),
    "validate_frequency_capital_words": Constraint(
        tulu.capital_word_count, {"N": _count, "quantifier": _quantifier}
    ),
    "validate_end": Constraint(tulu.ends_with, {"end_phrase": _text}),
    "validate_quotation": Constraint(ifeval.is_quoted),
    "validate_no_commas": Constraint(ifeval.has_no_comma),
}

CONSTRAINTS: Mapping[str, Constraint] = {
    **_IFEVAL,
    **_MORE,
    **{f"tulu:{name}": constraint for name, constraint in _TULU.items()},
}
