"""Schemas of items: what no run could apply is refused as the eval is made."""

from __future__ import annotations

from typing import Any

import pytest

from app.evals.item_schemas import fault_of

TREE = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
RIGHT: dict[str, dict[str, Any]] = {
    "nothing": {},
    "tree": TREE,
    "definitions": {"$defs": {"a": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a"}}},
    "anchor": {"$defs": {"a": {"$anchor": "n", "type": "string"}}, "properties": {"x": {"$ref": "#n"}}},
    "own name": {"$id": "https://a.example/s", "$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}},
    "a property called $ref": {"properties": {"$ref": {"type": "string"}}},
    "data that looks so": {"const": {"$ref": "#/nope"}},
    "twice the same": {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {}}},
    "booleans": {"properties": {"x": True}, "not": False},
    "older draft": {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"},
}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "elsewhere": ({"$ref": "http://127.0.0.1:9/x"}, "'http://127.0.0.1:9/x' refers to nothing in it"),
    "a file": ({"properties": {"x": {"$ref": "file:///etc/passwd"}}}, "refers to nothing in it"),
    "no such place": ({"$ref": "#/$defs/a"}, "'#/$defs/a' refers to nothing in it"),
    "no such anchor": ({"anyOf": [{"$ref": "#n"}]}, "refers to nothing in it"),
    "itself": ({"$ref": "#"}, "its recursion never ends"),
    "in a ring": (
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}},
        "its recursion never ends",
    ),
    "in a branch": ({"type": "object", "if": {"not": {"$ref": "#"}}}, "its recursion never ends"),
    "dependent": ({"dependentSchemas": {"a": {"$ref": "#"}}}, "its recursion never ends"),
    "no schema": ({"type": "thing"}, "it is no JSON schema"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_can_be_applied_is_taken(name: str) -> None:
    assert fault_of(RIGHT[name]) is None


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_is_refused_in_words(name: str) -> None:
    schema, said = WRONG[name]
    assert said in str(fault_of(schema))


def test_depth_is_no_trap() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"properties": {"a": schema}}
    assert fault_of(schema) == "it is nested too deeply"
