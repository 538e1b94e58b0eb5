"""Reads JSON schemas as pydantic writes them: what a place takes, without null, and told apart by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from graders.spec import GraderSpec

Schema = Mapping[str, Any]
LONG = 1000
"""Texts that may have more characters than this get several lines. Chosen, not measured."""
BY_NAME, TEXT, LIST, MAP = "by name", "text", "list", "object"
"""What the forms of a union are called that no property tells apart."""


class Form(NamedTuple):
    """One of the forms that a union takes.

    Attributes:
        key: what it is called in the form of the page.
        schema: what it takes.
        property: the property that tells it from the others; "" where the kind of JSON value does.
    """

    key: str
    schema: Schema
    property: str = ""

    def holds(self, value: Any) -> bool:
        """Tells whether a value has this form."""
        if self.property:
            return isinstance(value, Mapping) and value.get(self.property) == self.key
        kinds = {BY_NAME: str, TEXT: str, LIST: list, MAP: Mapping}
        return isinstance(value, kinds[self.key])


@lru_cache
def of_graders() -> Schema:
    """Returns the schema of every grader: a union told apart by `type`.

    A `multi` has its graders by name here. The other form, one bare grader, means the same as one of its own
    name.
    """
    schema: dict[str, Any] = TypeAdapter(GraderSpec).json_schema()
    properties = schema["$defs"]["MultiSpec"]["properties"]
    by_name = next(one for one in properties["graders"]["anyOf"] if one.get("type") == "object")
    properties["graders"] = {**properties["graders"], **by_name}
    del properties["graders"]["anyOf"]
    return schema


def settled(schema: Schema, root: Schema) -> Schema:
    """Returns a schema with its reference followed, and without null, which leaving the place out stands
    for."""
    while True:
        if "$ref" in schema:
            found = root["$defs"][schema["$ref"].rpartition("/")[2]]
        elif "anyOf" in schema and {"type": "null"} in schema["anyOf"]:
            others = [one for one in schema["anyOf"] if one != {"type": "null"}]
            found = others[0] if len(others) == 1 else {"anyOf": others}
        else:
            return schema
        own = {key: value for key, value in schema.items() if key not in ("$ref", "anyOf")}
        schema = {**found, **own}


def forms(schema: Schema, root: Schema) -> list[Form]:
    """Returns the forms of a union; none of what is no union."""
    return list(_forms(schema, root)) if "oneOf" in schema or "anyOf" in schema else []


def _forms(schema: Schema, root: Schema) -> Iterator[Form]:
    if told_by := schema.get("discriminator"):
        for key, reference in told_by["mapping"].items():
            yield Form(key, settled({"$ref": reference}, root), told_by["propertyName"])
        return
    for one in schema.get("oneOf") or schema["anyOf"]:
        inner = settled(one, root)
        if "oneOf" in inner or "anyOf" in inner:
            yield from _forms(inner, root)
        elif "enum" in inner:
            yield Form(BY_NAME, inner)
        else:
            yield Form({"string": TEXT, "array": LIST}.get(inner["type"], MAP), inner)


def description(schema: Schema) -> str:
    """Returns the first sentence of what a schema says of itself."""
    text = " ".join(str(schema.get("description", "")).replace("`", "").split())
    sentence, stop, _ = text.partition(". ")
    return sentence + "." if stop else text


def is_json(schema: Schema) -> bool:
    """Tells whether a place takes any JSON, so that nothing but JSON can be asked for."""
    return "type" not in schema or (schema["type"] == "object" and schema.get("additionalProperties") is True)


def is_pair(schema: Schema) -> bool:
    """Tells whether a place takes two numbers or texts, such as a range."""
    return schema.get("minItems") == schema.get("maxItems") == 2
