"""Graded groups as JSON, which keeps every bit of a float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from graders import Failure, FailureKind, Grade, TokenUsage
from workers.training.base.parts import Parts, ToolCall
from workers.training.base.turns import CallResult, Turn
from workers.training.base.types import Completion, Group, Prompt


def group_to_json(group: Group) -> dict[str, Any]:
    """Returns a group as JSON. Its prompt is stored by its row."""
    return {
        "row": group.prompt.row,
        "completions": [asdict(completion) for completion in group.completions],
        "grades": [asdict(grade) for grade in group.grades],
    }


def group_from_json(facts: dict[str, Any], prompts: Sequence[Prompt]) -> Group:
    """Reverses `group_to_json`."""
    completions = tuple(map(_completion_from_json, facts["completions"]))
    grades = tuple(_grade_from_json(grade) for grade in facts["grades"])
    return Group(prompts[facts["row"]], completions, grades)


def usage_from_json(facts: dict[str, dict[str, int]]) -> dict[str, TokenUsage]:
    """Returns the tokens of each model."""
    return {model: TokenUsage(**tokens) for model, tokens in facts.items()}


def _completion_from_json(facts: dict[str, Any]) -> Completion:
    lists: dict[str, Any] = {
        name: tuple(facts[name]) for name in ("tokens", "logprobs", "given") if name in facts
    }
    parts = facts.get("parts")
    turns = tuple(map(_turn_from_json, facts.get("turns", ())))
    of_loss = {"lost_by": FailureKind(facts["lost_by"])} if "lost_by" in facts else {}
    return Completion(
        **{**facts, **lists, **of_loss, "parts": parts and _parts_from_json(parts), "turns": turns}
    )


def _turn_from_json(facts: dict[str, Any]) -> Turn:
    results = tuple(CallResult(**{**one, "call": ToolCall(**one["call"])}) for one in facts["results"])
    parts, messages = _parts_from_json(facts["parts"]), tuple(facts["messages"])
    return Turn(**{**facts, "parts": parts, "results": results, "messages": messages})


def _parts_from_json(facts: dict[str, Any]) -> Parts:
    return Parts(**{**facts, "calls": tuple(ToolCall(**call) for call in facts["calls"])})


def _grade_from_json(facts: dict[str, Any]) -> Grade:
    part_failures = {name: _failure_from_json(failure) for name, failure in facts["part_failures"].items()}
    failure = facts["failure"] and _failure_from_json(facts["failure"])
    part_usage = {name: usage_from_json(usage) for name, usage in facts.get("part_usage", {}).items()}
    rebuilt = {"failure": failure, "part_failures": part_failures, "part_usage": part_usage}
    return Grade(**{**facts, **rebuilt, "usage": usage_from_json(facts.get("usage", {}))})


def _failure_from_json(facts: dict[str, str]) -> Failure:
    return Failure(FailureKind(facts["kind"]), facts["message"], facts.get("lost", ""))
