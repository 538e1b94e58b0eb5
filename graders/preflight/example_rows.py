"""Makes up rows that have what a grader reads, for trying it before there is data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graders.fields.spec import CollectionRule, DateRule, FieldRule, FieldsSpec, NumberRule, ObjectRule
from graders.spec import GraderSpec, single_graders
from graders.template import Template

_WORDS = ("Pisa", "Bergen", "Cusco")


def example_rows(spec: GraderSpec) -> list[dict[str, Any]]:
    """Returns three rows in which every path that the grader names holds a text; for `fields` an object."""
    return [_row(spec, word, number) for number, word in enumerate(_WORDS, start=7)]


def _row(spec: GraderSpec, word: str, number: int) -> dict[str, Any]:
    row: dict[str, Any] = {"messages": [{"role": "user", "content": f"Which town is meant by {number}?"}]}
    for single in single_graders(spec):
        for param, text in single.templates():
            for variable in Template.parse(text).variables:
                if variable.namespace == "item":
                    is_object = isinstance(single, FieldsSpec) and param == "reference"
                    _put(row, variable.steps, _object(single.fields, word, number) if is_object else word)  # type: ignore[union-attr]
    return row


def _put(row: dict[str, Any], steps: tuple[str | int, ...], value: Any) -> None:
    """Sets what a path leads to, making objects and lists on the way; what is there stays."""
    here: Any = row
    for step, following in zip(steps, (*steps[1:], None), strict=True):
        below: Any = value if following is None else [] if isinstance(following, int) else {}
        if isinstance(here, dict):
            here = here.setdefault(step, below)
        elif isinstance(here, list) and isinstance(step, int) and step < 100:
            here.extend([below] * (step + 1 - len(here)))
            here = here[step]


def _object(rules: Mapping[str, FieldRule] | None, word: str, number: int) -> dict[str, Any]:
    if rules is None:
        return {"town": word, "people": number}
    return {key: _value(rule, word, number) for key, rule in rules.items()}


def _value(rule: FieldRule, word: str, number: int) -> Any:
    match rule:
        case NumberRule():
            return number
        case DateRule():
            return f"2024-03-{number:02}"
        case CollectionRule(items=items):
            return (
                [_value(items, word, number)] if not isinstance(items, str) else [_named(items, word, number)]
            )
        case ObjectRule():
            return _object(rule.fields, word, number)
        case _:
            return word


def _named(rule: str, word: str, number: int) -> Any:
    return {"number": number, "date": f"2024-03-{number:02}"}.get(rule, word)
