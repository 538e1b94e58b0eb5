"""Lists the fields of a dataset row beside its messages: what a completion is held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from app.dashboard.samples.turns import Cut, as_json, cut

MOST_FIELDS = 60
LONGEST_VALUE = 2_000
LONGEST_PATH = 300
NOT_LISTED = ("messages", "tools", "functions")
"""What is shown otherwise: the conversation, and the tools by their names."""


class Field(NamedTuple):
    """A value of a row by its dotted path; texts as they are, all else as JSON."""

    path: str
    value: Cut


class Fields(NamedTuple):
    """The fields of a row, and how many are left out."""

    shown: list[Field]
    left: int = 0


def fields_of(item: Mapping[str, Any], longest: int = LONGEST_VALUE) -> Fields:
    """Returns what a row has beside its messages."""
    found: list[Field] = []
    left = 0
    for name, value in item.items():
        if name in NOT_LISTED:
            continue
        for path, leaf in _leaves(name, value):
            if len(found) < MOST_FIELDS:
                found.append(
                    Field(path[:LONGEST_PATH], cut(leaf if isinstance(leaf, str) else as_json(leaf), longest))
                )
            else:
                left += 1
    return Fields(found, left)


def tools_of(item: Mapping[str, Any]) -> list[str]:
    """Returns the names of the tools that a row offers."""
    listed = item.get("tools")
    functions = (
        [one.get("function") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    )
    return [str(one.get("name")) for one in functions if isinstance(one, dict)]


def _leaves(path: str, value: object) -> Iterator[tuple[str, object]]:
    """Yields the values below a path: objects are opened, and lists that hold some."""
    pending: list[tuple[str, object]] = [(path, value)]
    while pending:  # not by calls: a row may be nested deeply
        path, value = pending.pop()
        if isinstance(value, Mapping) and value:
            pending += [
                (f"{path}.{name}"[:LONGEST_PATH], below) for name, below in reversed(list(value.items()))
            ]
        elif isinstance(value, list) and any(isinstance(one, dict | list) for one in value):
            pending += [
                (f"{path}[{i}]"[:LONGEST_PATH], below) for i, below in reversed(list(enumerate(value)))
            ]
        else:
            yield path, value
