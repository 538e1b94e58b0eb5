"""Which types arguments may have, by the schemas that users write."""

from __future__ import annotations

from typing import Any

import pytest

from workers.training.rendering.argument_types import types_of, with_types

WHOLE = {
    "$defs": {
        "level": {"type": "integer"},
        "a/b": {"$ref": "#/$defs/level"},
        "self": {"$ref": "#/$defs/self"},
        "choice": {"anyOf": [{"$ref": "#/$defs/level"}, {"type": "null"}]},
    }
}


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ({"type": "integer"}, ["integer"]),
        ({"type": ["integer", "null"]}, ["integer", "null"]),
        ({"type": "string", "enum": ["1", "2"]}, ["string"]),
        ({"enum": [1, 2.5, True, None]}, ["integer", "number", "boolean", "null"]),
        ({"const": 2}, ["integer"]),
        ({"const": None}, ["null"]),
        ({"$ref": "#/$defs/level"}, ["integer"]),
        ({"$ref": "#/$defs/a~1b"}, ["integer"]),
        ({"$ref": "#/$defs/choice"}, ["integer", "null"]),
        ({"allOf": [{"type": "array"}, {"minItems": 1}]}, ["array"]),
        ({"type": "number", "nullable": True}, ["number", "null"]),
        ({"$ref": "#/$defs/self"}, []),
        ({"$ref": "https://example.com/level"}, []),
        ({"$ref": "#/$defs/none"}, []),
        ({"type": {}, "anyOf": 3, "enum": "x"}, []),
        ({}, []),
        (True, []),
    ],
)
def test_types_follow_from_the_schema(schema: Any, types: list[str]) -> None:
    assert types_of(schema, WHOLE) == types


@pytest.mark.parametrize("tool", [{}, {"function": None}, {"function": {"parameters": {"properties": []}}}])
def test_tools_without_arguments_stay_as_they_are(tool: dict[str, Any]) -> None:
    assert with_types([tool]) == [tool]
