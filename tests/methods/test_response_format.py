"""What a response format may be, and what is wrong with one that may not."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from methods.response_format import ResponseFormatInvalid, checked, grammar_of

STRICT = {
    "type": "object",
    "properties": {"town": {"type": "string"}, "of": {"$ref": "#/$defs/land"}},
    "required": ["town", "of"],
    "additionalProperties": False,
    "$defs": {"land": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
}


def of(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **more}}


@pytest.mark.parametrize(
    "given",
    [
        {"type": "text"},
        {"type": "json_object"},
        of(STRICT, strict=True, description="A town."),
        of(STRICT, strict=None, description=None),
        of({"type": "array", "items": {"type": "integer"}}),
        {"type": "json_schema", "json_schema": {"name": "anything"}},
    ],
)
def test_a_good_format_is_given_back_as_it_came(given: dict[str, Any]) -> None:
    assert checked(given) == given
    assert (grammar_of(given) is None) == (given["type"] == "text")


def test_the_clients_own_strict_schema_is_good() -> None:
    from openai.lib._parsing._completions import type_to_response_format_param
    from pydantic import BaseModel

    class Person(BaseModel):
        name: str
        languages: list[str]
        age: int | None

    made: Any = type_to_response_format_param(Person)
    assert checked(made) == made


@pytest.mark.parametrize(
    ("schema", "text", "is_let_through"),
    [
        ({"type": "string", "format": "date"}, '"2023-02-30"', False),
        ({"type": "string", "format": "date"}, '"2023-02-29"', True),
        ({"type": "number"}, "1e-9", True),
        ({"type": "number", "exclusiveMinimum": 0}, "1e-9", False),
        ({"type": "number", "exclusiveMinimum": 0}, "0.000000001", True),
        ({"const": 1.0}, "1.0", False),
        ({"const": 1.0}, "1", True),
    ],
)
def test_llguidance_and_json_schema_differ_where_the_docs_say(
    schema: dict[str, Any], text: str, is_let_through: bool
) -> None:
    """llguidance 1.9.1, see findings/: if a case fails, docs/extensions.md has to follow."""
    tokenizer = LLTokenizer("byte")
    matcher = LLMatcher(tokenizer, grammar_of(of(schema)))
    tokens = tokenizer.tokenize_str(text)
    fits = matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()
    assert fits == is_let_through


SHAPES = {
    "null": (None, "invalid_type", ""),
    "text": ("json_object", "invalid_type", ""),
    "empty": ({}, "missing_required_parameter", "type"),
    "kind": ({"type": "xml"}, "invalid_value", "type"),
    "number-as-kind": ({"type": 5}, "invalid_type", "type"),
    "unknown": ({"type": "text", "x": 1}, "unknown_parameter", "x"),
    "no-schema-block": ({"type": "json_schema"}, "missing_required_parameter", "json_schema"),
    "no-name": (
        {"type": "json_schema", "json_schema": {"schema": STRICT}},
        "missing_required_parameter",
        "json_schema.name",
    ),
    "name": (of(STRICT, name="a b"), "invalid_value", "json_schema.name"),
    "long-name": (of(STRICT, name="a" * 65), "invalid_value", "json_schema.name"),
    "strict-as-text": (of(STRICT, strict="yes"), "invalid_type", "json_schema.strict"),
    "schema-as-list": (of([]), "invalid_type", "json_schema.schema"),
    "schema-null": (of(None), "invalid_type", "json_schema.schema"),
    "unknown-inside": (of(STRICT, x=1), "unknown_parameter", "json_schema.x"),
}


@pytest.mark.parametrize(("raw", "code", "param"), SHAPES.values(), ids=SHAPES)
def test_a_malformed_format_is_refused_with_its_place(raw: Any, code: str, param: str) -> None:
    with pytest.raises(ResponseFormatInvalid) as caught:
        checked(raw)
    assert (caught.value.code, caught.value.param) == (code, param)


NESTED = {"type": "object", "properties": {"in": {"type": "object", "properties": {}}}, "required": ["in"]}
SCHEMAS = {
    "open": ({**STRICT, "additionalProperties": True}, True, "'additionalProperties'"),
    "optional": ({**STRICT, "required": ["town"]}, True, "Missing 'of'"),
    "no-object": ({"type": "array"}, True, "type: \"array\""),
    "nested-open": ({**NESTED, "additionalProperties": False}, True, "In context=('properties', 'in')"),
    "unknown-type": ({"type": "magic"}, False, "Invalid type: magic"),
    "not": ({"not": {"type": "string"}}, False, '"not"'),
    "pattern": ({"type": "string", "pattern": "("}, False, "unclosed group"),
    "reference": ({"$ref": "#/nowhere"}, False, "/nowhere"),
    "remote": ({"$ref": "http://127.0.0.1/schema"}, False, "does not fetch"),
    "impossible": ({"type": "integer", "minimum": 5, "maximum": 3}, False, "greater than"),
    "huge": ({"type": "object", "properties": {f"p{i}": {} for i in range(20_000)}}, False, "131,072"),
}  # fmt: skip


@pytest.mark.parametrize(("schema", "strict", "told"), SCHEMAS.values(), ids=SCHEMAS)
def test_a_schema_that_cannot_be_held_is_refused_with_the_reason(
    schema: dict[str, Any], strict: bool, told: str
) -> None:
    with pytest.raises(ResponseFormatInvalid) as caught:
        checked(of(schema, strict=strict))
    assert (caught.value.code, caught.value.param) == ("invalid_json_schema", "json_schema.schema")
    assert told in caught.value.message
    assert "'answer'" in caught.value.message
    assert len(caught.value.message) < 800


VALUES = st.sampled_from(
    [None, 0, -1.5, "", "string", "object", [], [1], ["a"], {}, {"type": "string"}, True]
)
KEYS = st.sampled_from(
    ["type", "properties", "required", "items", "enum", "anyOf", "$ref", "$defs", "pattern"]
)


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.booleans())
def test_any_schema_is_taken_or_refused(schema: dict[str, Any], strict: bool) -> None:
    with suppress(ResponseFormatInvalid):
        assert checked(of(schema, strict=strict))["json_schema"]["schema"] == schema


def test_checking_needs_no_torch() -> None:
    code = "import sys, methods.response_format; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


BARE = [
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    {"properties": {"a": {"type": "string"}}},
    {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Answer", "type": "object"},
    {"type": ["object", "null"], "properties": {}},
    {"anyOf": [{"type": "string"}, {"type": "number"}]},
    {"type": "array", "items": {"type": "integer"}},
    {"enum": ["yes", "no"]},
]


@pytest.mark.parametrize("schema", BARE)
@pytest.mark.parametrize("is_in_block", [False, True])
def test_a_bare_schema_is_shown_in_the_wrapper_that_it_needs(schema, is_in_block):
    """What is shown can be sent as it stands."""
    raw = {"type": "json_schema", "json_schema": schema} if is_in_block else schema
    with pytest.raises(ResponseFormatInvalid) as refused:
        checked(raw)
    shown = refused.value.message
    wrapper = json.loads(shown[shown.index("{") : shown.rindex("}") + 1])
    assert wrapper == {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    assert checked(wrapper) == wrapper
    assert refused.value.param == ("json_schema.name" if is_in_block else "type")


def test_a_long_bare_schema_is_not_repeated():
    schema = {"type": "object", "properties": {f"field_{i}": {"type": "string"} for i in range(100)}}
    with pytest.raises(ResponseFormatInvalid, match=r'"schema": \{"\.\.\.": "\.\.\."\}\}\}\.$') as refused:
        checked(schema)
    assert len(refused.value.message) < 400


@pytest.mark.parametrize("raw", [{}, {"type": "xml"}, {"json_schema": {"name": "a"}}, 7, None])
def test_what_is_no_schema_gets_no_wrapper(raw):
    with pytest.raises(ResponseFormatInvalid) as refused:
        checked(raw)
    assert "A schema itself" not in refused.value.message


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    ],
)
def test_a_recursion_without_an_end_is_said_in_plain_words(schema: dict[str, Any]) -> None:
    with pytest.raises(ResponseFormatInvalid) as caught:
        checked(of(schema))
    assert caught.value.message == (
        "Invalid schema for response_format 'answer': no text is of its form. A schema that refers to itself "
        "needs an alternative that does not."
    )
