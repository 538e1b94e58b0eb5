"""Grades `string_check`: 1 or 0 by comparing two strings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from graders.grading import Score, grade_by
from graders.template import Template
from graders.types import Grade, Sample

Operation = Literal["eq", "ne", "like", "ilike"]


def string_check(operation: Operation, text: str, reference: str) -> bool:
    """Compares code point by code point: nothing is trimmed or normalised.

    `like` asks whether the text contains the reference, so an empty reference is always found;
    `ilike` asks the same of the case-folded strings.
    """
    match operation:
        case "eq":
            return text == reference
        case "ne":
            return text != reference
        case "like":
            return reference in text
        case "ilike":
            return reference.casefold() in text.casefold()


@dataclass(frozen=True)
class StringCheck:
    """Grades 1 or 0 by comparing two strings: a built `string_check` grader."""

    name: str
    input: Template
    reference: Template
    operation: Operation
    type: str = "string_check"

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return grade_by(self._score, sample, item)

    def _score(self, sample: Sample, item: Mapping[str, Any]) -> Score:
        reference = self.reference.render(sample, item)
        text = self.input.render(sample, item)
        return Score(float(string_check(self.operation, text, reference)))
