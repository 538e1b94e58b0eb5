"""`instructions`: the share of verifiable constraints (IFEval) that an answer meets. An extension of ours."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graders import strict_json
from graders.grading import Score, grade_by
from graders.instructions.constraints import Check, ConstraintInvalid, bound
from graders.instructions.spec import InstructionsSpec
from graders.template import Template
from graders.types import FailureKind, Grade, GradeFailed, Sample

MAX_TEXT = 65_536
"""Characters of an answer that are looked at."""

MAX_LABEL = 65_536
"""Characters of a row's constraints, where they are text."""

Named = tuple[str, Check]
"""A constraint's id, and the check with its arguments."""


@dataclass(frozen=True)
class Instructions:
    """A built `instructions` grader."""

    name: str
    input: Template
    fixed: Sequence[Named]
    """Constraints of every row; empty where each row has its own."""
    instructions: Template | None
    kwargs: Template | None
    is_loose: bool
    wants_all: bool
    strip_thinking: bool
    type: str = "instructions"

    @classmethod
    def build(cls, spec: InstructionsSpec) -> Instructions:
        of_rows = Template.parse(spec.instructions) if isinstance(spec.instructions, str) else None
        listed = [] if isinstance(spec.instructions, str) else spec.instructions
        return cls(
            spec.name,
            Template.parse(spec.input),
            [(one.id, bound(one.id, one.kwargs)) for one in listed],
            of_rows,
            Template.parse(spec.kwargs) if spec.kwargs is not None else None,
            spec.mode == "loose",
            spec.scoring == "all",
            spec.strip_thinking,
        )

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return grade_by(self._score, sample, item)

    def _score(self, sample: Sample, item: Mapping[str, Any]) -> Score:
        constraints = self.fixed or self._of_row(sample, item)
        text = self.input.render(sample, item)
        if self.strip_thinking:
            text = text.rpartition("</think>")[2].strip()
        return score_constraints(text[:MAX_TEXT], constraints, self.is_loose, self.wants_all)

    def _of_row(self, sample: Sample, item: Mapping[str, Any]) -> list[Named]:
        assert self.instructions is not None
        value = self.instructions.value(sample, item)
        if self.kwargs is None:
            return constraints_of(value)
        return constraints_of({"instruction_id": value, "kwargs": self.kwargs.value(sample, item)})


def score_constraints(text: str, constraints: Sequence[Named], is_loose: bool, wants_all: bool) -> Score:
    """The share of constraints met, or 1 only if all are. An empty answer meets none, as in the original."""
    variants = [one for one in (_variants(text) if is_loose else [text]) if one.strip()]
    met = [(name, any(check(variant) for variant in variants)) for name, check in constraints]
    share = sum(is_met for _, is_met in met) / len(met)
    missed = [name for name, is_met in met if not is_met]
    reason = "not met: " + ", ".join(missed[:8]) if missed else "all constraints are met"
    return Score(
        float(not missed) if wants_all else share, _parts(met), reason if text.strip() else "no answer"
    )


def _parts(met: Sequence[tuple[str, bool]]) -> dict[str, float]:
    """By id: met or not; the share, where a row has an id more than once."""
    by_id: dict[str, list[bool]] = {}
    for name, is_met in met:
        by_id.setdefault(name, []).append(is_met)
    return {name: sum(each) / len(each) for name, each in by_id.items()}


def _variants(text: str) -> Iterator[str]:
    """IFEval's loose reading: without the first line, the last, or both; each with and without asterisks."""
    lines = text.split("\n")
    for piece in (lines, lines[1:], lines[:-1], lines[1:-1]):
        whole = "\n".join(piece) if piece is lines else "\n".join(piece).strip()
        yield whole
        yield whole.replace("*", "")


def constraints_of(value: Any) -> list[Named]:
    """The constraints of a row, in any of the forms that published data has.

    `{"instruction_id": [...], "kwargs": [...]}`, that in a list of one, either as the text of JSON or of a
    Python literal, or Tulu's older `{"func_name": ..., arguments}`. Raises `GradeFailed` (the row's fault).
    """
    label = _object_of(value, depth=0)
    if "func_name" in label:
        arguments = {key: each for key, each in label.items() if key != "func_name"}
        return [_bound(f"tulu:{label['func_name']}", arguments)]
    ids = label.get("instruction_id", label.get("instruction_id_list"))
    arguments_list = label.get("kwargs", [None] * len(ids) if isinstance(ids, list) else None)
    ids, arguments_list = _loaded(ids), _loaded(arguments_list)
    if not isinstance(ids, list) or not ids or not all(isinstance(one, str) for one in ids):
        raise _unusable("has no list of constraint ids")
    if not isinstance(arguments_list, list) or len(arguments_list) != len(ids):
        raise _unusable(f"needs a list of {len(ids)} objects of arguments, one for each constraint")
    return [_bound(name, arguments) for name, arguments in zip(ids, arguments_list, strict=True)]


def _bound(name: str, arguments: Any) -> Named:
    if arguments is not None and not isinstance(arguments, dict):
        raise _unusable(f"has arguments of '{name}' that are no object")
    try:
        return name, bound(name, arguments)
    except ConstraintInvalid as fault:
        raise GradeFailed(FailureKind.INVALID_VARIABLE, f"The row's constraints: {fault}") from None


def _object_of(value: Any, depth: int) -> dict[str, Any]:
    value = _loaded(value)
    if isinstance(value, list) and len(value) == 1 and depth < 2:
        return _object_of(value[0], depth + 1)
    if not isinstance(value, dict):
        raise _unusable("is not an object with 'instruction_id' and 'kwargs'")
    return value


def _loaded(value: Any) -> Any:
    """What a text holds, as JSON or as a Python literal; any other value as it is."""
    if not isinstance(value, str):
        return value
    if len(value) > MAX_LABEL:
        raise _unusable(f"is longer than {MAX_LABEL:,} characters")
    try:
        return strict_json.loads(value.strip())
    except strict_json.StrictJsonError:
        pass
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        raise _unusable("is neither JSON nor a Python literal") from None


def _unusable(why: str) -> GradeFailed:
    return GradeFailed(FailureKind.INVALID_VARIABLE, f"The row's list of constraints {why}.")
