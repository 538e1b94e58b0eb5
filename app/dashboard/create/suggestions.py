"""Suggests a grader that fits the rows of a file, to begin with."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from app.dashboard.create.kinds import ANSWER, KINDS
from app.dashboard.create.reading import number
from graders.preflight.references import ANSWER_KEYS
from graders.strict_json import StrictJsonError, loads

NO_REFERENCE = ("messages", "tools", "functions", "parallel_tool_calls")
"""Keys of rows that no answer is held against."""
SAME = ("input", "reference", "name")
"""Texts that mean the same in several kinds, and are kept when the kind changes."""


def for_row(item: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns a grader that can read a row, by what its keys hold; one of texts where nothing is known."""
    for key in _by_likelihood(item or {}):
        assert item is not None
        if (found := _by_value(key, item[key])) is not None:
            return found
    return copy.deepcopy(dict(KINDS["string_check"].grader))


def paths_of(item: Mapping[str, Any] | None) -> list[str]:
    """Returns what graders can read of a row, as it is written in their texts."""
    found = []
    for key, value in (item or {}).items():
        if key in NO_REFERENCE:
            continue
        found.append(f"{{{{item.{key}}}}}")
        if isinstance(value, Mapping):
            found += [f"{{{{item.{key}.{inner}}}}}" for inner in value]
    return found


def changed_kind(grader: Any, kind: str, row: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the example of a kind, with the texts of the grader before that mean the same there.

    Where a row is known, a reference is what the row holds, and no fields are made up.
    """
    made = copy.deepcopy(dict(KINDS[kind].grader))
    if row is not None and "reference" in made:
        made["reference"] = for_row(row).get("reference", made["reference"])
        made.pop("fields", None)
    before = grader if isinstance(grader, Mapping) else {}
    for name in SAME:
        is_kept = isinstance(before.get(name), str) and before[name]
        if is_kept and (name == "name" or isinstance(made.get(name), str)):
            made[name] = before[name]
    return made


def _by_likelihood(item: Mapping[str, Any]) -> list[str]:
    keys = [key for key in item if key not in NO_REFERENCE]
    known = [key for key in ANSWER_KEYS if key in keys]
    return known + [key for key in keys if key not in known and "reference" in key]


def _by_value(key: str, value: Any) -> dict[str, Any] | None:
    reference = f"{{{{item.{key}}}}}"
    if isinstance(value, Mapping) or isinstance(_parsed(value), Mapping):
        return {"type": "fields", "input": "{{sample.output_json}}", "reference": reference}
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if not isinstance(value, str) or not isinstance(number(value.replace(",", "")), str):
        return {"type": "math", "input": ANSWER, "reference": reference}
    return {"type": "string_check", "operation": "eq", "input": ANSWER, "reference": reference}


def _parsed(value: Any) -> Any:
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return None
    try:
        return loads(value.encode())
    except StrictJsonError:
        return None
