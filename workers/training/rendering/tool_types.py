"""The types of a tool's arguments, where its schema tells them in another way than by `type`.

Families that write calls as XML write text alone; transformers turns that into what the schema's `type` says,
and leaves an enum of numbers, or what stands behind a `$ref`, as text that breaks the schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_NAMES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
_NAMES |= {list: "array", dict: "object"}
_DEEPEST = 8
"""References that are followed one after the other. Chosen, not measured: schemas may go in circles."""


def with_types(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns tools whose parameters all say their `type`, as far as their schema tells it."""
    return [_typed(tool) for tool in tools]


def _typed(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool.get("function", tool)
    schema = function.get("parameters") if isinstance(function, Mapping) else None
    if not isinstance(schema, Mapping) or not isinstance(properties := schema.get("properties"), Mapping):
        return dict(tool)
    told = {name: _with_type(each, schema) for name, each in properties.items()}
    changed = {**function, "parameters": {**schema, "properties": told}}
    return {**tool, "function": changed} if "function" in tool else changed


def _with_type(schema: Any, root: Mapping[str, Any]) -> Any:
    if not isinstance(schema, Mapping) or "type" in schema:
        return schema
    types = list(dict.fromkeys(_types(schema, root, 0)))
    return {**schema, "type": types} if types else schema


def _types(schema: Any, root: Mapping[str, Any], depth: int) -> Iterator[str]:
    """Yields the types that a schema allows, those of its values and of what it points to too."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return
    declared = schema.get("type", ())
    yield from [declared] if isinstance(declared, str) else declared
    values = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]
    yield from (_NAMES[type(value)] for value in values)
    if isinstance(found := schema.get("$ref"), str):
        yield from _types(_at(root, found), root, depth + 1)
    for key in ("allOf", "anyOf", "oneOf"):
        for choice in schema.get(key) or ():
            yield from _types(choice, root, depth + 1)


def _at(root: Mapping[str, Any], reference: str) -> Any:
    """Returns what a reference within the schema points to; None where that is not there."""
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:] if reference.startswith("#") else ["", ""]:
        found = found.get(step) if isinstance(found, Mapping) else None
    return found
