"""Makes the fields of a form from a JSON schema and the value that is there: what the templates draw.

The name of a field is the path to its value: `grader/=/graders/0/value/=/input`. In a union `/?` says which
form was chosen and `/=` holds it; entries of a list or an object are numbered, and those of an object have
`/key` and `/value`. `/+` holds what no field is there for, so that nothing is lost.
`app/dashboard/create/reading.py` is the way back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from app.dashboard.create.schemas import LONG, Schema, description, forms, is_json, is_pair, settled

Kind = Literal["text", "long", "number", "choice", "json", "pair", "list", "map", "union", "object"]
FILLED_IN = "name"
"""A property that is required and filled in where it is missing."""
MAIN = frozenset(
    ("criteria", "extract", "fields", "input", "instruction", "prompt", "range", "tests", "weight", "compare")
)
"""Properties that are shown at once though they may be left out; others lie under "more settings"."""


@dataclass
class Field:
    """One place of a form. `parts` are below it, `more` too, folded in."""

    name: str
    label: str
    kind: Kind
    path: str = ""
    """Where the value stands in the grader, as errors name it: `graders.city.input`."""
    help: str = ""
    text: str = ""
    hint: str = ""
    """What is taken where it is left out."""
    is_required: bool = False
    choices: Sequence[tuple[str, str]] = ()
    """Value and words of each choice."""
    parts: list[Field] = field(default_factory=list)
    more: list[Field] = field(default_factory=list)
    is_open: bool = False
    """Some of `more` is filled in."""
    told_by: str = ""
    """In a union: the property by which its forms are told apart."""
    key: Field | None = None
    """In an object of free keys: the field of this entry's key."""


def field_of(
    schema: Schema,
    value: Any,
    root: Schema,
    name: str,
    *,
    label: str = "",
    path: str = "",
    is_required: bool = True,
) -> Field:
    """Returns the field of a value, None standing for what is not there."""
    schema = settled(schema, root)
    made = Field(name, label, "text", path, description(schema), is_required=is_required, hint=_hint(schema))
    if found := forms(schema, root):
        return _union(made, found, value, root)
    if is_json(schema):
        made.kind, made.text = (
            "json",
            "" if value is None else json.dumps(value, ensure_ascii=False, indent=1),
        )
        return made
    match schema["type"]:
        case "object" if "properties" in schema:
            return _object(made, schema, value, root)
        case "object":
            return _map(made, schema, value, root)
        case "array" if is_pair(schema):
            made.kind = "pair"
            ends = [*(value if isinstance(value, list) else []), "", ""][:2]
            made.parts = [
                Field(f"{name}/{at}", str(at + 1), "text", text=as_text(end)) for at, end in enumerate(ends)
            ]
            return made
        case "array":
            return _list(made, schema, value, root)
    made.text = as_text(value)
    if "enum" in schema or "const" in schema or schema["type"] == "boolean":
        made.kind, made.choices = "choice", _choices(schema, value, is_required=is_required)
    elif schema["type"] in ("number", "integer"):
        made.kind = "number"
    else:
        is_short = "pattern" in schema or schema.get("maxLength", LONG + 1) <= LONG
        made.kind = "text" if is_short else "long"
    return made


def as_text(value: Any) -> str:
    """Returns a single JSON value as it stands in a field."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _hint(schema: Schema) -> str:
    default = schema.get("default")
    return "" if default in (None, "", [], {}) else as_text(default)


def _choices(schema: Schema, value: Any, *, is_required: bool) -> list[tuple[str, str]]:
    if schema.get("type") == "boolean":
        options = ["true", "false"]
    else:
        options = [as_text(one) for one in schema.get("enum", [schema.get("const")])]
    text = as_text(value)
    if text and text not in options:  # shown as it was given, so that the fault can be seen
        options.append(text)
    default = _hint(schema)
    left_out = [] if is_required else [("", f"left out: {default}" if default else "left out")]
    return [*left_out, *((one, one) for one in options)]


def _union(made: Field, found: Sequence[Any], value: Any, root: Schema) -> Field:
    chosen = next((one for one in found if value is not None and one.holds(value)), None)
    if chosen is None and made.is_required:
        chosen = found[0]
    left_out = [] if made.is_required else [("", f"left out: {made.hint}" if made.hint else "left out")]
    made.kind = "union"
    made.choices = [*left_out, *((one.key, one.key.replace("_", " ")) for one in found)]
    if chosen is not None:
        made.text, made.told_by = chosen.key, chosen.property
        schema = without(chosen.schema, chosen.property)
        part = field_of(schema, value, root, f"{made.name}/=", path=made.path)
        part.label = part.label or made.label
        made.parts = [part]
    return made


def without(schema: Schema, name: str) -> Schema:
    """Returns the schema of an object without one of its properties."""
    if not name:
        return schema
    properties = {key: one for key, one in schema["properties"].items() if key != name}
    return {**schema, "properties": properties}


def _object(made: Field, schema: Schema, value: Any, root: Schema) -> Field:
    made.kind = "object"
    given = value if isinstance(value, Mapping) else {}
    required = [one for one in schema.get("required", ()) if one != FILLED_IN]
    for key, inner in schema["properties"].items():
        path = f"{made.path}.{key}" if made.path else key
        needed = key in required
        part = field_of(
            inner, given.get(key), root, f"{made.name}/{key}", label=key, path=path, is_required=needed
        )
        if needed or key in MAIN:
            made.parts.append(part)
        else:
            made.more.append(part)
            made.is_open = made.is_open or key in given
    made.parts.sort(key=lambda part: not part.is_required)
    told = {*schema["properties"], "type", "compare"}
    if unknown := {key: one for key, one in given.items() if key not in told}:
        text = json.dumps(unknown, ensure_ascii=False, indent=1)
        made.parts.append(Field(f"{made.name}/+", "other keys, as JSON", "json", text=text))
    return made


def _map(made: Field, schema: Schema, value: Any, root: Schema) -> Field:
    made.kind = "map"
    given = value if isinstance(value, Mapping) else {}
    for at, (key, one) in enumerate(given.items()):
        path = f"{made.path}.{key}" if made.path else key
        name = f"{made.name}/{at}"
        part = field_of(schema["additionalProperties"], one, root, f"{name}/value", label=key, path=path)
        part.key = Field(f"{name}/key", "name", "text", text=key)
        made.parts.append(part)
    return made


def _list(made: Field, schema: Schema, value: Any, root: Schema) -> Field:
    made.kind = "list"
    given = value if isinstance(value, list) else []
    for at, one in enumerate(given):
        path = f"{made.path}[{at}]"
        made.parts.append(
            field_of(schema["items"], one, root, f"{made.name}/{at}", label=str(at + 1), path=path)
        )
    return made
