"""Tools of rows and jobs: which functions a row lists, and whether the job has them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from methods.faults import Fault
from methods.rows import Row

DEFAULT_EPISODE_STEPS = 10
"""Most turns of an episode where a job with tools does not say. It is what Azure's published jobs ask for."""


def tool_names(item: Mapping[str, Any]) -> list[str]:
    """Returns the names of the functions that a row lists, in the form of chats or of responses."""
    listed = [tool.get("function") or tool for tool in item.get("tools") or ()]
    listed += item.get("functions") or ()
    return [str(one["name"]) for one in listed if isinstance(one, Mapping) and "name" in one]


def tool_faults(rows: Sequence[Row], names: Collection[str]) -> list[Fault]:
    """Returns a fault for each row that lists a function which is none of the job's tools."""
    faults = []
    for row in rows:
        if unknown := [name for name in tool_names(row.item) if name not in names]:
            shown = ", ".join(f"'{name}'" for name in dict.fromkeys(unknown))
            has = ", ".join(f"'{name}'" for name in names) or "none"
            faults.append(Fault(row.line, f"its 'tools' list {shown}, and the job's tools are {has}"))
    return faults
