"""Reads the value back out of a posted form whose fields `app/dashboard/create/fields.py` has named."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from app.dashboard.create.fields import FILLED_IN, without
from app.dashboard.create.schemas import Schema, forms, is_json, is_pair, settled
from graders.strict_json import StrictJsonError, loads

Tree = dict[str, Any]
"""Posted fields by the parts of their names: texts, and trees below them."""


class Missing:
    """Stands for a place that was left empty."""


MISSING = Missing()


def tree_of(posted: Iterable[tuple[str, str]], name: str) -> Any:
    """Returns what was posted below a name. Line ends are as in files here: browsers send two signs."""
    tree: Tree = {}
    for each, text in posted:
        first, *rest = each.split("/")
        if first != name or not rest:
            continue
        place = tree
        for part in rest[:-1]:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                break
            place = inner
        else:
            place[rest[-1]] = text.replace("\r\n", "\n")
    return tree


def read(schema: Schema, tree: Any, root: Schema, *, is_required: bool = True) -> Any:
    """Returns the value that a form means, or `MISSING`.

    What cannot be read stays text: the service says what is wrong with it.
    """
    schema = settled(schema, root)
    if found := forms(schema, root):
        return _union(found, tree, root, is_required=is_required)
    if is_json(schema):
        return _json(tree)
    match schema["type"]:
        case "object" if "properties" in schema:
            return _object(schema, tree, root, is_required=is_required)
        case "object":
            return _map(schema, tree, root, is_required=is_required)
        case "array" if is_pair(schema):
            ends = [_single(settled(schema["items"], root), one) for one in _entries(tree)]
            return MISSING if all(one == "" for one in ends) else ends
        case "array":
            return _list(schema, tree, root, is_required=is_required)
    if not isinstance(tree, str):
        return _unposted(schema) if is_required else MISSING
    is_text = schema["type"] == "string" and "enum" not in schema
    if not tree.strip() and not (is_required and is_text):
        return MISSING
    return _single(schema, tree)


def _unposted(schema: Schema) -> Any:
    """Returns what a new place begins with."""
    if "enum" in schema:
        return schema["enum"][0]
    return "" if schema["type"] == "string" else MISSING


def _single(schema: Schema, text: Any) -> Any:
    if not isinstance(text, str):
        return ""
    match schema["type"]:
        case "boolean":
            return {"true": True, "false": False}.get(text, text)
        case "integer" | "number":
            return number(text)
        case _:
            return text


def number(text: str) -> Any:
    """Returns the number that a text is, whole if it is written so, or the text."""
    text = text.strip()
    for kind in (int, float):
        try:
            found = kind(text)
        except ValueError:
            continue
        return found if math.isfinite(found) else text
    return text


def _json(text: Any) -> Any:
    if not isinstance(text, str) or not text.strip():
        return MISSING
    try:
        return loads(text.encode())
    except StrictJsonError:
        return text


def _union(found: Any, tree: Any, root: Schema, *, is_required: bool) -> Any:
    tree = tree if isinstance(tree, dict) else {}
    chosen = next((one for one in found if one.key == tree.get("?")), found[0] if is_required else None)
    if chosen is None:
        return MISSING
    value = read(without(chosen.schema, chosen.property), tree.get("="), root)
    if not chosen.property:
        return value
    return {chosen.property: chosen.key, **(value if isinstance(value, dict) else {})}


def _object(schema: Schema, tree: Any, root: Schema, *, is_required: bool) -> Any:
    tree = tree if isinstance(tree, dict) else {}
    required = [one for one in schema.get("required", ()) if one != FILLED_IN]
    value: dict[str, Any] = {}
    for key, inner in schema["properties"].items():
        one = read(inner, tree.get(key), root, is_required=key in required)
        if one is not MISSING:
            value[key] = one
    unknown = _json(tree.get("+"))
    if isinstance(unknown, dict):
        value |= unknown
    is_empty = all(one in ("", [], {}) for one in value.values())
    return MISSING if is_empty and not is_required else value


def _entries(tree: Any) -> list[Any]:
    """Returns numbered entries in their order."""
    given = tree if isinstance(tree, dict) else {}
    return [given[at] for at in sorted((one for one in given if one.isdecimal()), key=int)]


def _map(schema: Schema, tree: Any, root: Schema, *, is_required: bool) -> Any:
    value: dict[str, Any] = {}
    for entry in _entries(tree):
        if not isinstance(entry, dict):
            continue
        key = entry.get("key", "")
        one = read(schema["additionalProperties"], entry.get("value"), root)
        value[key if key not in value else f"{key}_{len(value) + 1}"] = {} if one is MISSING else one
    return value if value or is_required else MISSING


def _list(schema: Schema, tree: Any, root: Schema, *, is_required: bool) -> Any:
    value = [read(schema["items"], entry, root) for entry in _entries(tree)]
    value = [one for one in value if one is not MISSING]
    return value if value or is_required else MISSING


def press(tree: Tree, action: str) -> None:
    """Does to a posted form what its button says: `add-entry PATH`, `add-item PATH` or `remove PATH/2`.

    A path is that of a field's name, without the first part. What is not there changes nothing.
    """
    verb, _, path = action.partition(" ")
    steps = path.split("/")[1:]
    last = steps.pop() if verb == "remove" and steps else ""
    place: Any = tree
    for step in steps:
        place = place.setdefault(step, {}) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        return
    if verb == "remove":
        place.pop(last, None)
    elif verb in ("add-item", "add-entry"):
        at = 1 + max((int(one) for one in place if one.isdecimal()), default=-1)
        place[str(at)] = {} if verb == "add-item" else {"key": f"part_{at + 1}", "value": {}}
