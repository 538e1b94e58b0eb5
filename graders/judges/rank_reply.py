"""Reads what a judge replied about several answers: a score and a reason for each, by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from graders.judges.reply import MAX_REASON, misread, number, read_reply
from graders.services import Reply


class Said(NamedTuple):
    """Holds what a judge said of one answer."""

    score: float
    reason: str


def names_of(answers: int) -> list[str]:
    """Returns the names under which a call shows its answers, in their order."""
    return [f"answer-{number}" for number in range(1, answers + 1)]


def schema_of(names: Sequence[str]) -> dict[str, Any]:
    """Returns the JSON schema of a reply about answers of these names; a reason comes before its score."""
    of_one = {
        "type": "object",
        "properties": {
            "answer": {"type": "string", "enum": list(names)},
            "reason": {"type": "string"},
            "score": {"type": "number"},
        },
        "required": ["answer", "reason", "score"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"scores": {"type": "array", "items": of_one}},
        "required": ["scores"],
        "additionalProperties": False,
    }


def read_scores(reply: Reply, model: str, names: Sequence[str]) -> dict[str, Said]:
    """Returns what a reply says of each answer, by its name; one that got no score, or several, is left out.

    Raises `GradeFailed` (model_grader_parse_error) for a reply that cannot be read: also one with a score
    beyond 0 to 1, whose scale nobody knows.
    """
    usage = {model: reply.usage}
    entries = read_reply(reply.text, usage).get("scores")
    if not isinstance(entries, list):
        raise misread("has no list as its 'scores'", reply.text, usage)
    found: dict[str, list[Said]] = {}
    for entry in entries:
        if not isinstance(entry, dict) or (name := entry.get("answer")) not in names:
            continue
        if (score := number(entry.get("score"))) is None:
            continue
        if not 0 <= score <= 1:
            raise misread(f"has the score {score:g}, beyond 0 to 1", reply.text, usage)
        reason = entry.get("reason")
        told = f"{reason if isinstance(reason, str) else ''} {f'[{reply.remark}]' if reply.remark else ''}"
        found.setdefault(str(name), []).append(Said(score, told.strip()[:MAX_REASON]))
    if not found:
        raise misread("has no score for any answer", reply.text, usage)
    return {name: said[0] for name, said in found.items() if len({one.score for one in said}) == 1}
