"""Tries other graders on the base's answers, where the job's own gives all of them the same.

Often the right answer is there, in a sentence or in a code fence, and the grader wants the bare text. Then
another kind of grader tells the same answers apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from graders import GraderSpec, build_grader, parse_grader, strict_json
from graders.preflight.references import Reference, reference_of
from workers.training.base.types import Group
from workers.training.rewards import sample_of

INPUT, REFERENCE = "{{sample.output_text}}", "{{item.reference}}"
COMPARED = {"name": "other", "input": INPUT, "reference": REFERENCE}
WRITTEN: dict[str, Any] = {
    "type": "multi",
    "graders": {
        "value": {**COMPARED, "type": "math"},
        "written": {**COMPARED, "type": "string_check", "operation": "like"},
    },
    "calculate_output": "value * written",
}
"""`math` alone counts what has the value, such as the sum that was asked for, repeated."""
NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?")
MOST_ANSWERS = 512
"""Answers that each grader is tried on. Chosen, not measured: twice those of a preflight's defaults."""


class Other(NamedTuple):
    """Holds what another grader makes of the same answers.

    Attributes:
        name: what it is called in messages.
        right: mean value that it gives, 0 to 1.
        differing: share of the prompts whose answers get different values by it.
    """

    name: str
    right: float
    differing: float


def other_graders(spec: GraderSpec, groups: Sequence[Group]) -> list[Other]:
    """Returns what other graders make of the answers, the one that tells most of them apart first.

    None where the job's grader compares with no reference that could be taken out of it.
    """
    groups = groups[: max(1, MOST_ANSWERS // len(groups[0].completions))]
    references = [reference_of(spec, group.prompt.item) for group in groups]
    known = [reference for reference in references if reference is not None]
    if len(known) < len(groups):
        return []
    found = [_tried(name, raw, groups, known) for name, raw in _candidates(spec, known)]
    return sorted(found, key=lambda other: (-other.differing, -other.right))


def in_words(others: Sequence[Other]) -> str:
    """Returns the sentences that say which grader to take; "" where none was tried."""
    if not others:
        return ""
    better = [other for other in others if other.differing > 0]
    if not better:
        names = " and ".join(other.name for other in others)
        return f"By {names} they get the same too, so that it is not only their form that is wrong."
    first, *more = better
    also = "".join(f"; by {other.name} {other.right:.0%}" for other in more)
    return (
        f"Take another grader: by {first.name} the same answers get {first.right:.0%} of the reward, and"
        f" {first.differing:.0%} of the prompts have answers with different rewards{also}."
    )


def _candidates(spec: GraderSpec, references: Sequence[Reference]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields graders to try, as (name in messages, grader), of kinds that the job's grader is not."""
    if not (spec.type == "string_check" and spec.operation in ("like", "ilike")):
        contains = {"type": "string_check", "operation": "ilike"}
        yield "`string_check` with the operation `ilike` (the answer contains the reference)", contains
    if spec.type != "math" and all(NUMBER.fullmatch(reference.text.strip()) for reference in references):
        yield (
            "`multi` of `math` and `string_check` with `like` (the last number, if it is written out)",
            WRITTEN,
        )
    if spec.type != "fields" and all(_holds_object(reference) for reference in references):
        yield "`fields` (each field for itself)", {"type": "fields", "input": "{{sample.output_json}}"}


def _tried(name: str, raw: dict[str, Any], groups: Sequence[Group], references: Sequence[Reference]) -> Other:
    whole = {"name": "other", **raw} if raw["type"] == "multi" else {**COMPARED, **raw}
    grader = build_grader(parse_grader(whole))
    values = []
    for group, reference in zip(groups, references, strict=True):
        item = {**group.prompt.item, "reference": reference.text}
        grades = (grader.grade(sample_of(completion), item) for completion in group.completions)
        values.append([grade.value or 0.0 for grade in grades])
    return Other(
        name,
        fmean(value for group in values for value in group),
        fmean(len(set(group)) > 1 for group in values),
    )


def _holds_object(reference: Reference) -> bool:
    try:
        return isinstance(strict_json.loads(reference.text.strip()), dict)
    except strict_json.StrictJsonError:
        return False
