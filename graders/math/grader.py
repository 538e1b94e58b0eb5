"""Grades `math`: is the answer the same number or expression as the reference? An extension of ours.

Numbers and lists of them are compared here; all else by math-verify, in a process that is killed if slow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from graders.grading import Score, grade_by
from graders.math.compare import NeedsLibrary, compared_here
from graders.math.extract import MAX_ANSWER, answers, reference_answer
from graders.math.process import ComparerBroken, ComparisonSlow, comparers
from graders.math.spec import MathSpec
from graders.spec_base import Extractor
from graders.template import Template
from graders.types import FailureKind, Grade, GradeFailed, Sample

MAX_TEXT = 262_144
"""Characters of a completion that are searched for the answer, from its end."""


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
        reference = reference_answer(self.reference.render(sample, item))
        text = self.input.render(sample, item)[-MAX_TEXT:]
        found_in = answers(text, self.extract)
        candidates = dict.fromkeys(found_in if self.any_candidate else islice(found_in, 1))
        if not candidates:
            self._compare(reference, "")
            return Score(0.0, {"parsed": 0.0, "equal": 0.0}, "no answer was found in the text")
        best = _Comparison(parsed=False, equal=False, note="")
        for candidate in candidates:
            found = self._compare(reference, candidate)
            best = max(best, found)
        return Score(float(best.equal), {"parsed": float(best.parsed), "equal": float(best.equal)}, best.note)

    def _compare(self, reference: str, answer: str) -> _Comparison:
        """Compares one candidate.

        Raises `GradeFailed`: invalid_variable_error for the reference's fault, other_error for ours.
        """
        here = compared_here(reference, answer, self.decimals)
        if not isinstance(here, NeedsLibrary):
            return _judged(answer, reference, parsed=here is not None, equal=bool(here))
        if here.reference is None or len(here.reference) > MAX_ANSWER:
            raise _unusable(reference, "is no number or expression that can be read")
        try:
            result = self._ask(here.reference, here.answer)
            if (why := _fault(result)) is not None:
                return self._blame(reference, here.reference, answer, why)
        except ComparerBroken as broken:
            raise GradeFailed(FailureKind.OTHER, f"Expressions cannot be compared: {broken}.") from None
        if not result["reference"]:
            raise _unusable(reference, "is no number or expression that can be read")
        return _judged(answer, reference, parsed=result["parsed"], equal=result["equal"])

    def _ask(self, reference: str, answer: str) -> dict[str, Any]:
        """Returns the result of a comparing process; it says so if that took too long."""
        request = {"reference": reference, "answer": answer, "decimals": self.decimals, "strict": self.strict}
        try:
            return comparers().compare(request, self.time_limit)
        except ComparisonSlow:
            return {"error": "slow", "why": "took too long to compare"}

    def _blame(self, reference: str, latex: str, answer: str, why: str) -> _Comparison:
        """Puts the fault on the answer, unless the reference cannot be compared with 0 either."""
        alone = self._ask(latex, "0")
        if (fault := _fault(alone)) is not None or not alone["reference"]:
            raise _unusable(reference, fault or why)
        return _Comparison(parsed=False, equal=False, note=f"the answer {_shown(answer)} {why}")


def _fault(result: Mapping[str, Any]) -> str | None:
    """Returns why there is no verdict, or None where there is one."""
    return str(result.get("why", "cannot be read")) if "error" in result else None


def _judged(answer: str, reference: str, *, parsed: bool, equal: bool) -> _Comparison:
    if equal:
        note = f"{_shown(answer)} is {_shown(reference)}"
    elif parsed or not answer:
        note = f"{_shown(answer)} is not {_shown(reference)}"
    else:
        note = f"the answer {_shown(answer)} is no number or expression that can be read"
    return _Comparison(parsed, equal, note)


def _shown(text: str) -> str:
    return text[:60] or "''"


def _unusable(reference: str, why: str) -> GradeFailed:
    return GradeFailed(FailureKind.INVALID_VARIABLE, f"The reference {_shown(reference)} {why}.")
