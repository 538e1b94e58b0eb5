"""Reads a judge's verdicts on the criteria of a rubric, and makes a value, curves and a reason of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from graders.judges.criteria import Criterion
from graders.judges.reply import MAX_REASON, read_reply

WANTED, UNWANTED, ANSWERED = "wanted", "unwanted", "answered"
RESERVED = (WANTED, UNWANTED, ANSWERED)
"""Parts that every rubric has, so that no criterion may have such a name."""
VERDICT_SCHEMA = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "met": {"type": "boolean"}},
    "required": ["reason", "met"],
    "additionalProperties": False,
}
SHORTEST_LINE = 120
"""Characters that are kept of each criterion and what the judge said of it at least. Chosen, not measured."""


class Verdict(NamedTuple):
    """Holds what the judge said of one criterion; `met` is None where it gave no answer."""

    criterion: Criterion
    met: bool | None
    reason: str = ""


def schema_of(criteria: int) -> dict[str, Any]:
    """Returns the JSON schema of a reply: a verdict under the number of each criterion, so that none is left
    out where a server holds its model to the schema."""
    numbers = [str(number) for number in range(1, criteria + 1)]
    return {
        "type": "object",
        "properties": dict.fromkeys(numbers, VERDICT_SCHEMA),
        "required": numbers,
        "additionalProperties": False,
    }


def read_verdicts(text: str, criteria: Sequence[Criterion]) -> list[Verdict]:
    """Returns what a reply says of each criterion: one that it leaves out, or answers with neither true nor
    false, is not answered. Raises `GradeFailed` for a reply that is not one JSON object."""
    content = read_reply(text, {})
    return [
        _verdict(content.get(str(number)), criterion) for number, criterion in enumerate(criteria, start=1)
    ]


def _verdict(entry: Any, criterion: Criterion) -> Verdict:
    met = entry.get("met") if isinstance(entry, dict) else None
    if not isinstance(met, bool):
        return Verdict(criterion, None)
    reason = entry.get("reason")
    return Verdict(criterion, met, reason.strip() if isinstance(reason, str) else "")


def value_of(verdicts: Sequence[Verdict]) -> float:
    """Returns the points reached over those to reach, of the criteria that were answered; 0 at least."""
    return max(0.0, _share(verdicts) or 0.0)


def parts_of(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Returns the curves of a rubric.

    By name where the grader lists its criteria: 1 for one that is met. By tag: points reached over those to
    reach, below 0 where faults outweigh them. And of all: the share of the wanted points that was reached, of
    the unwanted ones that was incurred, and of the criteria that the judge answered.
    """
    tagged: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        for tag in verdict.criterion.tags:
            tagged[tag].append(verdict)
    parts = {tag: share for tag, some in tagged.items() if (share := _share(some)) is not None}
    for criterion, met, _ in verdicts:
        if criterion.name and met is not None:
            parts[criterion.name] = float(met)
    answered = [verdict for verdict in verdicts if verdict.met is not None]
    for name, sign in ((WANTED, 1), (UNWANTED, -1)):
        of_sign = [verdict for verdict in answered if sign * verdict.criterion.points > 0]
        if of_sign:
            all_points = sum(verdict.criterion.points for verdict in of_sign)
            parts[name] = abs(_reached(of_sign) / all_points)
    return parts | {ANSWERED: len(answered) / len(verdicts)}


def reason_of(verdicts: Sequence[Verdict], remark: str) -> str:
    """Returns what the judge said of each criterion, a line for each, with what is to be known beside it."""
    room = max(SHORTEST_LINE, MAX_REASON // len(verdicts))
    lines = [
        f"[{_told(met)}, {criterion.points:+g}] {_cut(criterion.text, room // 2)}: {reason}"
        for criterion, met, reason in verdicts
    ]
    lines = [_cut(" ".join(line.split()), room) for line in lines]
    return "\n".join([*lines, *([f"[{remark}]"] if remark else [])])


def _told(met: bool | None) -> str:
    return "not answered" if met is None else "met" if met else "not met"


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 3] + "..."


def _share(verdicts: Iterable[Verdict]) -> float | None:
    """Returns points reached over points to reach; None where there are none to reach."""
    answered = [verdict for verdict in verdicts if verdict.met is not None]
    possible = sum(verdict.criterion.points for verdict in answered if verdict.criterion.points > 0)
    return _reached(answered) / possible if possible > 0 else None


def _reached(verdicts: Iterable[Verdict]) -> float:
    return sum((verdict.criterion.points for verdict in verdicts if verdict.met), start=0.0)
