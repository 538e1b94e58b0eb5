"""Lists verifiable instructions on how a text is written: ids, arguments and checks.

Ids and meanings are IFEval's (Zhou et al. 2023, arXiv:2311.07911, 25 of them), those that open-instruct added
(29), and with the prefix `tulu:` the 25 functions of its older rows. Departures, each for a reason that a
policy would find: keywords are text, not regular expressions; an argument that is left out is a fault of the
data, where the originals draw one at random; a text without a letter is written in no language.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graders.instructions import ifbench, ifeval, tulu
from graders.instructions.language import LANGUAGES

RELATIONS = ("less than", "at least")
QUANTIFIERS = ("at least", "around", "at most")

Reader = Callable[[Any], Any]
"""Reads an argument as it stands in the data. Raises `ValueError` with what was expected."""


class InstructionInvalid(ValueError):
    """Says that an instruction is not known, or that its arguments do not fit; `param` says which."""

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
class Instruction:
    """Holds a check, called with the text and the arguments by name; each argument has its reader."""

    check: Callable[..., bool]
    takes: Mapping[str, Reader] = field(default_factory=dict)


Check = Callable[[str], bool]
"""An instruction with its arguments filled in: takes a text and says whether it follows."""


def bind(instruction_id: str, arguments: Mapping[str, Any] | None) -> Check:
    """Returns an instruction's check with its arguments; arguments that are null do not count as given.

    Raises `InstructionInvalid` for an unknown id, and for arguments that are missing, unknown or unfit.
    """
    instruction = INSTRUCTIONS.get(instruction_id)
    if instruction is None:
        raise InstructionInvalid(
            f"unknown instruction '{instruction_id[:80]}'; docs/graders.md lists those that are known.", "id"
        )
    given = {name: value for name, value in (arguments or {}).items() if value is not None}
    if strange := sorted(given.keys() - instruction.takes.keys()):
        raise InstructionInvalid(f"{instruction_id} takes no '{strange[0][:60]}'.", "kwargs")
    if missing := sorted(instruction.takes.keys() - given.keys()):
        raise InstructionInvalid(f"{instruction_id} needs '{missing[0]}'.", "kwargs")
    read = {name: _read(instruction_id, name, given[name], instruction.takes[name]) for name in given}
    return lambda text: instruction.check(text, **read)


def _read(instruction_id: str, name: str, value: Any, reader: Reader) -> Any:
    try:
        return reader(value)
    except (ValueError, OverflowError) as fault:
        raise InstructionInvalid(
            f"the '{name}' of {instruction_id} must be {fault}, not {str(value)[:60]!r}.", "kwargs"
        ) from None


_IFEVAL = {
    "keywords:existence": Instruction(ifeval.has_keywords, {"keywords": _texts}),
    "keywords:frequency": Instruction(
        ifeval.keyword_count, {"keyword": _text, "frequency": _count, "relation": _relation}
    ),
    "keywords:forbidden_words": Instruction(ifeval.has_no_words, {"forbidden_words": _texts}),
    "keywords:letter_frequency": Instruction(
        ifeval.letter_count, {"letter": _letter, "let_frequency": _count, "let_relation": _relation}
    ),
    "language:response_language": Instruction(ifeval.is_in_language, {"language": _language}),
    "length_constraints:number_sentences": Instruction(
        ifeval.sentence_count, {"num_sentences": _count, "relation": _relation}
    ),
    "length_constraints:number_paragraphs": Instruction(
        ifeval.divided_paragraphs, {"num_paragraphs": _count}
    ),
    "length_constraints:number_words": Instruction(
        ifeval.word_count, {"num_words": _count, "relation": _relation}
    ),
    "length_constraints:nth_paragraph_first_word": Instruction(
        ifeval.nth_paragraph_starts,
        {"num_paragraphs": _count, "nth_paragraph": _count, "first_word": _text},
    ),
    "detectable_content:number_placeholders": Instruction(
        ifeval.has_placeholders, {"num_placeholders": _count}
    ),
    "detectable_content:postscript": Instruction(ifeval.has_postscript, {"postscript_marker": _text}),
    "detectable_format:number_bullet_lists": Instruction(ifeval.has_bullets, {"num_bullets": _count}),
    "detectable_format:constrained_response": Instruction(ifeval.is_constrained_response),
    "detectable_format:number_highlighted_sections": Instruction(
        ifeval.has_highlights, {"num_highlights": _count}
    ),
    "detectable_format:multiple_sections": Instruction(
        ifeval.has_sections, {"section_spliter": _text, "num_sections": _count}
    ),
    "detectable_format:json_format": Instruction(ifeval.is_json),
    "detectable_format:title": Instruction(ifeval.has_title),
    "combination:two_responses": Instruction(ifeval.two_responses),
    "combination:repeat_prompt": Instruction(ifeval.starts_with_prompt, {"prompt_to_repeat": _text}),
    "startend:end_checker": Instruction(ifeval.ends_with, {"end_phrase": _text}),
    "startend:quotation": Instruction(ifeval.is_quoted),
    "change_case:capital_word_frequency": Instruction(
        ifeval.capital_word_count, {"capital_frequency": _count, "capital_relation": _relation}
    ),
    "change_case:english_capital": Instruction(ifeval.is_english_upper),
    "change_case:english_lowercase": Instruction(ifeval.is_english_lower),
    "punctuation:no_comma": Instruction(ifeval.has_no_comma),
}

_IFBENCH = {
    "copy:repeat_phrase": Instruction(ifbench.repeats_phrase, {"phrase": _text, "small_n": _count}),
    "copy:copy": Instruction(ifbench.is_copy, {"prompt_to_repeat": _text}),
    "copy:copying_simple": Instruction(ifbench.is_copy, {"prompt_to_repeat": _text}),
    "copy:copying_multiple": Instruction(ifbench.is_copies, {"prompt_to_repeat": _text, "N": _count}),
    "new:copy_span_idx": Instruction(
        ifbench.is_span, {"prompt_to_repeat": _text, "n_start": _count, "n_end": _count}
    ),
    "detectable_format:sentence_hyphens": Instruction(ifbench.hyphens_between_sentences),
    "detectable_format:square_brackets": Instruction(ifbench.words_in_brackets),
    "detectable_format:bigram_wrapping": Instruction(ifbench.bigrams_wrapped),
    "keywords:no_adjacent_consecutive": Instruction(ifbench.no_consecutive_initials),
    "keywords:word_once": Instruction(ifbench.keyword_once, {"keyword": _text}),
    "keywords:word_count_different_numbers": Instruction(
        ifeval.keyword_count, {"keyword": _text, "frequency": _count, "relation": _relation}
    ),
    "keywords:exclude_word_harder": Instruction(ifbench.has_no_word, {"keyword": _text}),
    "keywords:palindrome": Instruction(ifbench.has_palindrome),
    "keywords:keyword_specific_position": Instruction(
        ifbench.keyword_at, {"keyword": _text, "n": _count, "m": _count}
    ),
    "keywords:start_end": Instruction(ifbench.starts_as_it_ends),
    "paragraphs:paragraphs": Instruction(ifbench.two_divided_paragraphs),
    "paragraphs:paragraphs2": Instruction(ifbench.two_paragraphs),
    "first_word:first_word_sent": Instruction(ifbench.sentences_start_with, {"first_word": _text}),
    "first_word:first_word_answer": Instruction(ifbench.starts_with_word, {"first_word": _text}),
    "last_word:last_word_sent": Instruction(ifbench.sentences_end_with, {"last_word": _text}),
    "last_word:last_word_answer": Instruction(ifbench.ends_with_word, {"last_word": _text}),
    "punctuation:punctuation_dot": Instruction(ifbench.has_no_dot),
    "punctuation:punctuation_exclamation": Instruction(ifbench.has_no_exclamation),
    "count:lowercase_counting": Instruction(ifbench.few_lowercase_words, {"N": _count}),
    "count:counting_composition": Instruction(
        ifbench.counted_composition, {"n_sent": _count, "n_words": _count}
    ),
    "count:count_unique": Instruction(ifbench.words_are_unique),
    "count:count_increment_word": Instruction(
        ifbench.keyword_once_and_twice, {"keyword1": _text, "keyword2": _text}
    ),
    "letters:letter_counting": Instruction(ifbench.ascii_letter_count, {"N": _count, "relation": _relation}),
    "letters:letter_counting2": Instruction(
        ifeval.letter_count, {"letter": _letter, "let_frequency": _count, "let_relation": _relation}
    ),
}

_TULU = {
    "verify_keywords": Instruction(tulu.has_keywords, {"keyword_list": _texts}),
    "verify_keyword_frequency": Instruction(tulu.word_count_is, {"word": _text, "N": _count}),
    "validate_forbidden_words": Instruction(tulu.has_none_of, {"forbidden_words": _texts}),
    "verify_letter_frequency": Instruction(tulu.letter_count_is, {"letter": _letter, "N": _count}),
    "validate_response_language": Instruction(ifeval.is_in_language, {"language": _language}),
    "verify_paragraph_count": Instruction(tulu.paragraph_count_is, {"N": _count}),
    "validate_word_constraint": Instruction(tulu.word_count, {"N": _count, "quantifier": _quantifier}),
    "verify_sentence_constraint": Instruction(tulu.sentence_count, {"N": _count, "quantifier": _quantifier}),
    "validate_paragraphs": Instruction(
        tulu.nth_paragraph_starts, {"N": _count, "first_word": _text, "i": _count}
    ),
    "verify_postscript": Instruction(tulu.has_postscript, {"postscript_marker": _text}),
    "validate_placeholders": Instruction(tulu.has_placeholders, {"N": _count}),
    "verify_bullet_points": Instruction(tulu.bullet_count_is, {"N": _count}),
    "validate_title": Instruction(ifeval.has_title),
    "validate_choice": Instruction(tulu.has_choice, {"options": _texts}),
    "validate_highlighted_sections": Instruction(tulu.has_highlights, {"N": _count}),
    "validate_sections": Instruction(tulu.has_sections, {"N": _count, "section_splitter": _text}),
    "validate_json_format": Instruction(tulu.is_json),
    "validate_repeat_prompt": Instruction(tulu.starts_with, {"original_prompt": _text}),
    "validate_two_responses": Instruction(ifeval.two_responses),
    "validate_uppercase": Instruction(tulu.is_upper),
    "validate_lowercase": Instruction(tulu.is_lower),
    "validate_frequency_capital_words": Instruction(
        tulu.capital_word_count, {"N": _count, "quantifier": _quantifier}
    ),
    "validate_end": Instruction(tulu.ends_with, {"end_phrase": _text}),
    "validate_quotation": Instruction(ifeval.is_quoted),
    "validate_no_commas": Instruction(ifeval.has_no_comma),
}

INSTRUCTIONS: Mapping[str, Instruction] = {
    **_IFEVAL,
    **_IFBENCH,
    **{f"tulu:{name}": instruction for name, instruction in _TULU.items()},
}
