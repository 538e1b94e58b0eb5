"""Grades `math`: is the answer the same number or expression as the reference? An extension of ours.

Two plain numbers are compared here; anything else by math-verify, in a process that is killed if it is slow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from graders.grading import Score, grade_by
from graders.math.extract import MAX_ANSWER, answers, tidy
from graders.math.process import ComparerBroken, ComparisonSlow, comparers
from graders.math.spec import MathSpec
from graders.spec_base import Extractor
from graders.template import Template
from graders.types import FailureKind, Grade, GradeFailed, Sample

MAX_TEXT = 262_144
"""Characters of a completion that are searched for the answer, from its end."""

_PLAIN_NUMBER = re.compile(r"[-+\u2212]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,60})(?:\.[0-9]{1,60})?")


class _Comparison(NamedTuple):
    """Says what came of comparing one candidate."""

    parsed: bool
    equal: bool
    note: str


@dataclass(frozen=True)
class MathAnswer:
    """Grades 1 if the answer has the reference's value, else 0: a built `math` grader."""

    name: str
    input: Template
    reference: Template
    extract: Sequence[Extractor]
    any_candidate: bool
    strict: bool
    decimals: int
    time_limit: float
    type: str = "math"

    @classmethod
    def build(cls, spec: MathSpec) -> MathAnswer:
        """Builds the grader that a spec describes."""
        return cls(
            spec.name,
            Template.parse(spec.input),
            Template.parse(spec.reference),
            tuple(spec.extract),
            spec.any_candidate,
            spec.strict,
            spec.decimals,
            spec.time_limit,
        )

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return grade_by(self._score, sample, item)

    def _score(self, sample: Sample, item: Mapping[str, Any]) -> Score:
        rendered = self.reference.render(sample, item)
        reference = next(answers(rendered, ["boxed", "hash", "whole"]), "")
        text = self.input.render(sample, item)[-MAX_TEXT:]
        candidates = list(dict.fromkeys(answers(text, self.extract)))
        if not candidates:
            self._compare(reference, "")
            return Score(0.0, {"parsed": 0.0, "equal": 0.0}, "no answer was found in the text")
        tried = candidates if self.any_candidate else candidates[:1]
        best = _Comparison(parsed=False, equal=False, note="")
        for candidate in tried:
            found = self._compare(reference, candidate)
            best = max(best, found)
        return Score(float(best.equal), {"parsed": float(best.parsed), "equal": float(best.equal)}, best.note)

    def _compare(self, reference: str, answer: str) -> _Comparison:
        """Compares one candidate.

        Raises `GradeFailed`: invalid_variable_error for the reference's fault, other_error for ours.
        """
        one, other = plain_number(reference), plain_number(answer)
        if one is not None and (other is not None or not answer):
            same = other is not None and _same_number(one, other, self.decimals)
            return _judged(answer, reference, parsed=other is not None, equal=same)
        try:
            result = self._ask(reference, answer)
            if result is None or "error" in result:
                return self._blame(
                    reference, answer, "took too long to compare" if result is None else "cannot be read"
                )
        except ComparerBroken as broken:
            raise GradeFailed(FailureKind.OTHER, f"Expressions cannot be compared: {broken}.") from None
        if not result["reference"]:
            raise _unusable(reference, "is no number or expression that can be read")
        return _judged(answer, reference, parsed=result["parsed"], equal=result["equal"])

    def _ask(self, reference: str, answer: str) -> dict[str, Any] | None:
        """Returns the result of a comparing process; None if it took too long."""
        request = {"reference": reference, "answer": answer, "decimals": self.decimals, "strict": self.strict}
        if len(reference) > MAX_ANSWER:
            raise _unusable(reference, f"is longer than {MAX_ANSWER:,} characters")
        try:
            return comparers().compare(request, self.time_limit)
        except ComparisonSlow:
            return None

    def _blame(self, reference: str, answer: str, why: str) -> _Comparison:
        """Puts the fault on the answer, unless the reference cannot be compared with 0 either."""
        alone = self._ask(reference, "0")
        if alone is None or not alone.get("reference"):
            raise _unusable(reference, why)
        return _Comparison(parsed=False, equal=False, note=f"the answer {_shown(answer)} {why}")


def plain_number(text: str) -> Decimal | None:
    """Returns a number in digits, with commas only between thousands; None for any other text."""
    if not _PLAIN_NUMBER.fullmatch(text):
        return None
    return Decimal(text.replace(",", "").replace("\u2212", "-"))


def _same_number(one: Decimal, other: Decimal, decimals: int) -> bool:
    """Tells whether whole numbers are the same, and others once rounded."""
    if one == other:
        return True
    is_whole = one == one.to_integral_value() and other == other.to_integral_value()
    return not is_whole and abs(one - other) <= Decimal(5) * Decimal(10) ** -(decimals + 1)


def _judged(answer: str, reference: str, *, parsed: bool, equal: bool) -> _Comparison:
    if equal:
        note = f"{_shown(answer)} is {_shown(reference)}"
    elif parsed or not answer:
        note = f"{_shown(answer)} is not {_shown(reference)}"
    else:
        note = f"the answer {_shown(answer)} is no number or expression that can be read"
    return _Comparison(parsed, equal, note)


def _shown(text: str) -> str:
    return tidy(text)[:60] or "''"


def _unusable(reference: str, why: str) -> GradeFailed:
    return GradeFailed(FailureKind.INVALID_VARIABLE, f"The reference {_shown(reference)} {why}.")
