"""Grades `instructions`: the share of verifiable instructions (IFEval) followed. An extension of ours."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from graders import strict_json
from graders.grading import Score, grade_by
from graders.instructions.registry import Check, InstructionInvalid, bind
from graders.instructions.spec import InstructionsSpec
from graders.template import Template
from graders.types import FailureKind, Grade, GradeFailed, Sample

MAX_TEXT = 65_536
"""Characters of a text that are looked at."""

_LANGUAGE, _REPEATED = "language:response_language", "combination:repeat_prompt"
MAX_LABEL = 65_536
"""Characters of a row's instructions, where they are text."""


class BoundInstruction(NamedTuple):
    """Pairs an instruction's id with its check, the arguments filled in."""

    id: str
    is_followed: Check


@dataclass(frozen=True)
class Instructions:
    """Grades by the share of instructions followed: a built `instructions` grader."""

    name: str
    input: Template
    fixed: Sequence[BoundInstruction]
    """Instructions of every row; empty where each row has its own."""
    instructions: Template | None
    kwargs: Template | None
    is_loose: bool
    wants_all: bool
    type: str = "instructions"

    @classmethod
    def build(cls, spec: InstructionsSpec) -> Instructions:
        """Builds the grader that a spec describes."""
        of_rows = Template.parse(spec.instructions) if isinstance(spec.instructions, str) else None
        listed = [] if isinstance(spec.instructions, str) else spec.instructions
        return cls(
            spec.name,
            Template.parse(spec.input),
            [BoundInstruction(one.id, bind(one.id, one.kwargs)) for one in listed],
            of_rows,
            Template.parse(spec.kwargs) if spec.kwargs is not None else None,
            spec.mode == "loose",
            spec.scoring == "all",
        )

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return grade_by(self._score, sample, item)

    def _score(self, sample: Sample, item: Mapping[str, Any]) -> Score:
        instructions = self.fixed or self._of_row(sample, item)
        text = self.input.render(sample, item)
        return score_instructions(text[:MAX_TEXT], instructions, self.is_loose, self.wants_all)

    def _of_row(self, sample: Sample, item: Mapping[str, Any]) -> list[BoundInstruction]:
        assert self.instructions is not None
        value = self.instructions.value(sample, item)
        if self.kwargs is None:
            return instructions_of(value)
        return instructions_of({"instruction_id": value, "kwargs": self.kwargs.value(sample, item)})


def score_instructions(
    text: str, instructions: Sequence[BoundInstruction], is_loose: bool, wants_all: bool
) -> Score:
    """Returns the share of instructions that a text follows, or 1 only if it follows all.

    An empty text follows none, as in the original.
    """
    variants = [one for one in (_variants(text) if is_loose else [text]) if one.strip()]
    met = [(name, any(is_followed(variant) for variant in variants)) for name, is_followed in instructions]
    share = sum(is_met for _, is_met in met) / len(met)
    missed = [name for name, is_met in met if not is_met]
    reason = "not met: " + ", ".join(missed[:8]) if missed else "all instructions are met"
    return Score(
        float(not missed) if wants_all else share, _parts(met), reason if text.strip() else "no answer"
    )


def _parts(met: Sequence[tuple[str, bool]]) -> dict[str, float]:
    """Returns by id whether it was followed; the share, where a row has an id more than once."""
    by_id: dict[str, list[bool]] = {}
    for name, is_met in met:
        by_id.setdefault(name, []).append(is_met)
    return {name: sum(each) / len(each) for name, each in by_id.items()}


def _variants(text: str) -> Iterator[str]:
    """Yields IFEval's loose readings.

    They are the text without its first line, its last, or both; each with and without asterisks.
    """
    lines = text.split("\n")
    for piece in (lines, lines[1:], lines[:-1], lines[1:-1]):
        whole = "\n".join(piece) if piece is lines else "\n".join(piece).strip()
        yield whole
        yield whole.replace("*", "")


def instructions_of(value: Any) -> list[BoundInstruction]:
    """Returns the instructions of a row, in any of the forms that published data has.

    `{"instruction_id": [...], "kwargs": [...]}`, that in a list of one, either as the text of JSON or of a
    Python literal, or Tulu's older `{"func_name": ..., arguments}`. Raises `GradeFailed` (the row's fault).
    """
    label = _object_of(value, depth=0)
    if "func_name" in label:
        arguments = {key: each for key, each in label.items() if key != "func_name"}
        return [_bind(f"tulu:{label['func_name']}", arguments)]
    ids = label.get("instruction_id", label.get("instruction_id_list"))
    arguments_list = label.get("kwargs", [None] * len(ids) if isinstance(ids, list) else None)
    ids, arguments_list = _loaded(ids), _loaded(arguments_list)
    if not isinstance(ids, list) or not ids or not all(isinstance(one, str) for one in ids):
        raise _unusable("has no list of instruction ids")
    if not isinstance(arguments_list, list) or len(arguments_list) != len(ids):
        raise _unusable(f"needs a list of {len(ids)} objects of arguments, one for each instruction")
    bound = [_bind(name, arguments) for name, arguments in zip(ids, arguments_list, strict=True)]
    request = (arguments_list[ids.index(_REPEATED)] or {})["prompt_to_repeat"] if _REPEATED in ids else ""
    return [_after_request(one, request) if request and one.id == _LANGUAGE else one for one in bound]


def _after_request(instruction: BoundInstruction, request: str) -> BoundInstruction:
    """Returns the instruction for what follows a request that the row wants repeated, in its own language."""
    start = request.strip().lower()

    def is_followed(text: str) -> bool:
        plain = text.strip()
        return instruction.is_followed(plain[len(start) :] if plain.lower().startswith(start) else text)

    return BoundInstruction(instruction.id, is_followed)


def _bind(name: str, arguments: Any) -> BoundInstruction:
    if arguments is not None and not isinstance(arguments, dict):
        raise _unusable(f"has arguments of '{name}' that are no object")
    try:
        return BoundInstruction(name, bind(name, arguments))
    except InstructionInvalid as fault:
        raise GradeFailed(FailureKind.INVALID_VARIABLE, f"The row's instructions: {fault}") from None


def _object_of(value: Any, depth: int) -> dict[str, Any]:
    value = _loaded(value)
    if isinstance(value, list) and len(value) == 1 and depth < 2:
        return _object_of(value[0], depth + 1)
    if not isinstance(value, dict):
        raise _unusable("is not an object with 'instruction_id' and 'kwargs'")
    return value


def _loaded(value: Any) -> Any:
    """Returns what a text holds, as JSON or as a Python literal; any other value as it is."""
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
    return GradeFailed(FailureKind.INVALID_VARIABLE, f"The row's list of instructions {why}.")
