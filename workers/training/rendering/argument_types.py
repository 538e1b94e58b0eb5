"""Which types the arguments of a function may have, by its schema: some families write them as text.

The parser of transformers 5.23.0 reads them by `type`, `anyOf` and `oneOf` alone, so that numbers of an enum
or behind a `$ref` would stay text (findings/transformers-enum-arguments-stay-text.sh).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_MOST_REFS = 32
"""References followed one after another, so that one that leads to itself ends. Chosen, not measured."""
_NAMES: Mapping[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}


def with_types(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns tools in the chat form whose arguments' schemas say nothing but their types."""
    return [_with_types(tool) for tool in tools]


def types_of(schema: Any, whole: Mapping[str, Any]) -> list[str]:
    """Returns the types that a schema allows, each once; its `$ref`s point into the `whole` schema."""
    return list(dict.fromkeys(_types(schema, whole, _MOST_REFS)))


def _with_types(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = _object(tool.get("function"))
    parameters = _object(function.get("parameters"))
    properties = _object(parameters.get("properties"))
    if not properties:
        return dict(tool)
    typed = {name: {"type": types_of(schema, parameters)} for name, schema in properties.items()}
    return {**tool, "function": {**function, "parameters": {**parameters, "properties": typed}}}


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _types(schema: Any, whole: Mapping[str, Any], refs: int) -> Iterator[str]:
    if not isinstance(schema, Mapping):
        return
    declared = schema.get("type")
    yield from (name for name in _listed(declared) if isinstance(name, str))
    values = [*_listed(schema.get("enum"))] + ([schema["const"]] if "const" in schema else [])
    if declared is None:
        yield from (_NAMES[type(value)] for value in values)
    for word in ("anyOf", "oneOf", "allOf"):
        for choice in _listed(schema.get(word)):
            yield from _types(choice, whole, refs)
    if isinstance(pointer := schema.get("$ref"), str) and refs > 0:
        yield from _types(_at(pointer, whole), whole, refs - 1)
    if schema.get("nullable") is True:
        yield "null"


def _listed(value: Any) -> Sequence[Any]:
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def _at(pointer: str, whole: Mapping[str, Any]) -> Any:
    """Returns what a JSON pointer within the schema leads to; None where it leads elsewhere."""
    found: Any = whole
    for part in pointer.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if pointer.startswith("#") else None
