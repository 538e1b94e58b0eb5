"""Lists open-instruct's verifiers, and verl's by data source: which of our graders each is, by name.

Where an original is soft in a way that a policy would find, that is said at the verifier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graders import strict_json
from graders.code.tests_grader import CodeTests
from graders.code.tests_spec import CodeTestsSpec
from graders.grading import Score
from graders.instructions.grader import MAX_TEXT, instructions_of, score_instructions
from graders.math.grader import MathAnswer
from graders.math.spec import MathSpec
from graders.rlvr.labels import graded, tagged, text_of_label, unusable, without_answer_tags
from graders.rlvr.spec import RlvrSpec
from graders.services import Services
from graders.spec_base import Extractor
from graders.text.squad import is_same_answer, word_f1
from graders.types import FailureKind, GradeFailed, Grader, GraderInvalid, Sample

FORMAT_ONLY = 0.1
"""What `re_search_f1` gives a wrong answer between the right tags."""

REFUSED: Mapping[str, str] = {
    "passthrough": "passes on the reward of an environment, and there is none here."
}
"""Verifiers that are known and not to be had, with the reason."""

VERL: Mapping[str, str] = {
    "openai/gsm8k": "verl_gsm8k",
    "lighteval/math": "verl_math",
    "digitallearninggmbh/math-lighteval": "verl_math",
    "huggingfaceh4/math-500": "verl_math",
    "math_dapo": "verl_math",
    "math": "math",
    "codecontests": "code",
    "apps": "code",
    "codeforces": "code",
    "taco": "code",
    **{
        f"searchr1_{name}": "search_r1"
        for name in ("nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle")
    },
}
"""verl's data sources, in lower case, and the verifier that each is scored by there."""


@dataclass(frozen=True)
class SharedGraders:
    """Holds the graders that verifiers are made of, built once for a grader.

    Attributes:
        math: built `math` graders, by the name of the verifier.
        code: the built `code_tests` grader; None where there is no sandbox, which `why_no_code` explains.
        max_length: tokens over which the score of a length falls by 1.
    """

    math: Mapping[str, MathAnswer]
    code: Grader | None
    why_no_code: str
    max_length: int


Verify = Callable[[SharedGraders, Sample, Any], Score]
"""(shared, sample, label) to a score from 0 to 1. Raises `GradeFailed`."""


@dataclass(frozen=True)
class Verifier:
    """Scores a completion by a row's label.

    Attributes:
        verify: returns the score of a completion.
        takes_list: whether a label may be a list, of answers any of which is right.
    """

    verify: Verify
    takes_list: bool = False


def build_shared_graders(spec: RlvrSpec, services: Services) -> SharedGraders:
    """Builds the graders that verifiers are made of; without a sandbox only those of code are missing."""
    math = {
        name: MathAnswer.build(
            MathSpec(
                type="math",
                name=name,
                input="{{sample.output_text}}",
                reference="{{item.label}}",
                extract=extract,
                any_candidate=len(extract) > 1,
            )
        )
        for name, extract in _MATH.items()
    }
    tests = CodeTestsSpec(
        type="code_tests",
        name="code",
        input="{{sample.output_text}}",
        tests="{{item.label}}",
        min_share=spec.min_share,
    )
    try:
        return SharedGraders(math, CodeTests.build(tests, services), "", spec.max_length)
    except GraderInvalid as missing:
        return SharedGraders(math, None, missing.message, spec.max_length)


_MATH: Mapping[str, list[Extractor]] = {
    "gsm8k": ["number"],
    "math": ["boxed", "answer", "latex", "whole"],
    "strict_math": ["answer"],
    "verl_gsm8k": ["hash"],
    "verl_math": ["boxed"],
}


def _by_math(name: str) -> Verify:
    def verify(shared: SharedGraders, sample: Sample, label: Any) -> Score:
        return graded(shared.math[name], sample, {"label": label})

    return verify


def _ifeval(_shared: SharedGraders, sample: Sample, label: Any) -> Score:
    instructions = instructions_of(label)
    return score_instructions(without_answer_tags(sample.output_text)[:MAX_TEXT], instructions, False, False)


def _code(shared: SharedGraders, sample: Sample, label: Any) -> Score:
    if shared.code is None:
        raise GradeFailed(FailureKind.PYTHON_SERVER, shared.why_no_code)
    return graded(shared.code, sample, {"label": label})


def _flan(_shared: SharedGraders, sample: Sample, label: Any) -> Score:
    """Compares what follows "The answer is:"; the original takes the whole text where that is missing."""
    wanted = text_of_label(label)
    _, mark, answer = sample.output_text.rpartition("The answer is:")
    return _right_or_wrong(bool(mark) and is_same_answer(answer, wanted), answer if mark else None)


def _string_matcher(_shared: SharedGraders, sample: Sample, label: Any) -> Score:
    wanted = text_of_label(label)
    answer = tagged(sample.output_text, "answer")
    return _right_or_wrong(answer is not None and is_same_answer(answer, wanted), answer)


def _puzzle(_shared: SharedGraders, sample: Sample, label: Any) -> Score:
    answer = without_answer_tags(sample.output_text)
    return _right_or_wrong(is_same_answer(answer, text_of_label(label)), answer)


def _string_f1(_shared: SharedGraders, sample: Sample, label: Any) -> Score:
    answer = without_answer_tags(sample.output_text)
    return Score(max(word_f1(answer, one) for one in _texts(label)), {}, f"answered {answer[:60]!r}")


def _re_search(_shared: SharedGraders, sample: Sample, label: Any) -> Score:
    answer = tagged(sample.output_text, "finish")
    wanted = _texts(label)
    return _right_or_wrong(answer is not None and any(is_same_answer(answer, one) for one in wanted), answer)


def _re_search_f1(_shared: SharedGraders, sample: Sample, label: Any) -> Score:
    """Scores the F1 of the answer's words.

    The original gives 0.1 for either tag alone; here both must stand around an answer that has words.
    """
    wanted = _texts(label)
    answer = tagged(sample.output_text, "finish")
    if answer is None or not answer.strip():
        return _right_or_wrong(False, None)
    f1 = max(word_f1(answer, one) for one in wanted)
    return Score(f1 or FORMAT_ONLY, {"f1": f1}, f"answered {answer[:60]!r}")


def _search_r1(_shared: SharedGraders, sample: Sample, label: Any) -> Score:
    wanted = _texts(label.get("target") if isinstance(label, dict) else label)
    answer = tagged(sample.output_text, "answer")
    return _right_or_wrong(answer is not None and any(is_same_answer(answer, one) for one in wanted), answer)


def _max_length(shared: SharedGraders, sample: Sample, label: Any) -> Score:
    return _length_score(shared, sample, label, lambda tokens, wanted: abs(tokens - wanted))


def _up_to_max_length(shared: SharedGraders, sample: Sample, label: Any) -> Score:
    return _length_score(shared, sample, label, lambda tokens, wanted: max(0.0, tokens - wanted))


def _length_score(
    shared: SharedGraders, sample: Sample, label: Any, distance: Callable[[int, float], float]
) -> Score:
    """Returns 1 less the distance over `max_length`, and never below 0, as the original means it to be."""
    wanted = _number(label)
    tokens = sample.output_tokens if sample.output_text or sample.output_tokens else 0
    if tokens is None:
        raise GradeFailed(FailureKind.OTHER, "The number of tokens of the answer is not known here.")
    score = 1 - distance(tokens, wanted) / shared.max_length
    return Score(max(0.0, score), {}, f"{tokens} tokens, {wanted:g} wanted")


VERIFIERS: Mapping[str, Verifier] = {
    **{name: Verifier(_by_math(name)) for name in _MATH},
    "ifeval": Verifier(_ifeval, takes_list=True),
    "ifeval_old": Verifier(_ifeval),
    "code": Verifier(_code, takes_list=True),
    "code_stdio": Verifier(_code, takes_list=True),
    "flan": Verifier(_flan),
    "string_matcher": Verifier(_string_matcher),
    "string_f1": Verifier(_string_f1, takes_list=True),
    "puzzle": Verifier(_puzzle),
    "re_search": Verifier(_re_search, takes_list=True),
    "re_search_f1": Verifier(_re_search_f1, takes_list=True),
    "search_r1": Verifier(_search_r1, takes_list=True),
    "max_length": Verifier(_max_length),
    "up_to_max_length": Verifier(_up_to_max_length),
}


def _right_or_wrong(is_right: bool, answer: str | None) -> Score:
    reason = "no answer was found in the text" if answer is None else f"answered {answer.strip()[:60]!r}"
    return Score(float(is_right), {}, reason)


def _texts(label: Any) -> list[str]:
    """Returns the answers of a label: a list, a JSON list in text, or one answer."""
    if isinstance(label, str) and label.strip().startswith(("[", '"')):
        try:
            label = strict_json.loads(label.strip())
        except strict_json.StrictJsonError:
            return [label]
    if isinstance(label, list) and not label:
        raise unusable("is an empty list")
    return [text_of_label(one) for one in label] if isinstance(label, list) else [text_of_label(label)]


def _number(label: Any) -> float:
    try:
        number = float(text_of_label(label))
    except ValueError:
        raise unusable("is no number") from None
    if not 0 <= number < 1e9:
        raise unusable("is no number of tokens")
    return number
