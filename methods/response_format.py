"""`response_format` of a job or a chat request: what is accepted, and the grammar it means.

No torch: the API checks a request with the compiler that the sampler uses (llguidance).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

MAX_SCHEMA = 128 * 1024
"""Longest schema, in characters of compact JSON."""

WHITESPACE = r"[ ]|\n[ ]{0,16}|\n\t{0,8}"
"""Between two tokens of JSON: nothing, a space, or a new line with indentation. JSON allows any amount, and a
policy that finds no better token would fill its completion with it."""
ESCAPES = '"\\bfnrt'
"""Not `u`: a string could then hold NUL or half a surrogate pair, which graders refuse. UTF-8 does."""

WRITTEN: Any = {"whitespace_pattern": WHITESPACE, "json_allowed_escapes": ESCAPES}
"""How JSON is written that a grammar holds."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
FLAT = {"name", "schema", "strict", "description"}
"""What stands below `json_schema`."""
_KINDS = ("text", "json_object", "json_schema")
SCHEMA_WORDS = {
    "properties",
    "items",
    "anyOf",
    "oneOf",
    "allOf",
    "enum",
    "const",
    "required",
    "$defs",
    "$ref",
    "$schema",
}
"""Words that stand in a JSON schema, and not where a response format is expected."""
SCHEMA_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
MOST_SHOWN = 300
"""Characters of a schema that are shown in the wrapper that it needs. Chosen, not measured."""
ENDLESS = "no text is of its form. A schema that refers to itself needs an alternative that does not."
"""What is said of a schema whose recursion never ends."""
_BYTES = LLTokenizer("byte")
MOST_VERDICTS = 64
"""Schemas of which a process remembers whether they can be used. Chosen, not measured."""
_COMPILING = threading.Lock()
"""A large schema takes a core for a second: one is compiled at a time, so that streams keep theirs."""


class ResponseFormatInvalid(Exception):
    """`param` is the path within the response format; `code` one of OpenAI's."""

    def __init__(self, message: str, param: str = "", code: str = "invalid_value") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


def checked(raw: Any) -> dict[str, Any]:
    """A response format in OpenAI's chat form, as it came. Raises `ResponseFormatInvalid`."""
    try:
        kind = _kind(raw)
    except ResponseFormatInvalid as fault:
        if isinstance(raw, dict) and _is_schema(raw):
            hint = f" A schema itself goes below 'json_schema', as 'schema': {_wrapped(raw)}."
            raise ResponseFormatInvalid(fault.message + hint, fault.param, fault.code) from None
        raise
    if kind == "json_schema" and "json_schema" not in raw and FLAT & raw.keys():
        raise _flat(raw)
    known_keys = {"type", "json_schema"} if kind == "json_schema" else {"type"}
    _refuse_unknown(raw, known_keys, "")
    if kind == "json_schema":
        _check_block(_field(raw, "", "json_schema", dict))
    return dict(raw)


def _kind(raw: Any) -> str:
    kind: str = _field(raw, "", "type", str)
    if kind not in _KINDS:
        known = "'text', 'json_object', and 'json_schema'"
        message = f"Invalid value: '{kind[:60]}'. Supported values are: {known}."
        raise ResponseFormatInvalid(message, "type")
    return kind


def _is_schema(raw: Mapping[str, Any]) -> bool:
    kind = raw.get("type")
    return bool(SCHEMA_WORDS & raw.keys()) or isinstance(kind, list) or kind in SCHEMA_TYPES


def _wrapped(schema: Mapping[str, Any]) -> str:
    """Returns the response format that a schema is meant to be, as JSON; "..." stands for a long schema."""
    text = json.dumps(schema, ensure_ascii=False)
    shown = text if len(text) <= MOST_SHOWN else '{"...": "..."}'
    return f'{{"type": "json_schema", "json_schema": {{"name": "answer", "schema": {shown}}}}}'


def _flat(raw: Mapping[str, Any]) -> ResponseFormatInvalid:
    beside = ", ".join(f"'{key}'" for key in raw if key in FLAT)
    message = (
        f"Missing required parameter: 'json_schema'. {beside} must stand below it, not beside 'type' (as in"
        ' the Responses API): {"type": "json_schema", "json_schema": {"name": "...", "schema": {...}}}.'
    )
    return ResponseFormatInvalid(message, "json_schema", "missing_required_parameter")


def grammar_of(response_format: Mapping[str, Any] | None) -> str | None:
    """What llguidance compiles; None where nothing is asked for."""
    match response_format:
        case {"type": "json_object"}:
            return _grammar({"type": "object"})
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return _grammar(schema)
        case {"type": "json_schema"}:
            return _grammar({})
        case _:
            return None


def schema_of(response_format: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns the schema that a response format means, as a rule of a grammar has it; None for text."""
    match response_format:
        case {"type": "json_object"}:
            return held_schema({"type": "object"})
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return held_schema(schema)
        case {"type": "json_schema"}:
            return held_schema({})
        case _:
            return None


def held_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a schema that says for itself how its JSON may be written."""
    return {**schema, "x-guidance": WRITTEN}


def _grammar(schema: Mapping[str, Any]) -> str:
    return LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=WRITTEN)


def _check_block(block: dict[str, Any]) -> None:
    at = "json_schema"
    if "name" not in block and "schema" not in block and _is_schema(block):
        message = (
            f"Missing required parameter: '{at}.name'. The schema itself goes one level deeper, as 'schema'"
        )
        raise ResponseFormatInvalid(
            f"{message}: {_wrapped(block)}.", f"{at}.name", "missing_required_parameter"
        )
    name = _field(block, at, "name", str)
    if not _NAME.fullmatch(name):
        message = "it may have 1 to 64 letters, digits, underscores and dashes"
        raise ResponseFormatInvalid(f"Invalid value for '{at}.name': {message}.", f"{at}.name")
    _refuse_unknown(block, {"name", "description", "schema", "strict"}, at)
    for key, kind in (("description", str), ("schema", dict), ("strict", bool)):
        if block.get(key) is not None:
            _field(block, at, key, kind)
    schema = block.get("schema")
    if schema is None:
        if "schema" in block:
            raise _wrong_type(f"{at}.schema", dict, None)
        return
    problem = problem_of_schema(schema, is_strict=bool(block.get("strict")))
    if problem is None:
        problem = _verdict(_grammar(schema))
    if problem is not None:
        raise _invalid_schema(name, problem)


def problem_of_schema(schema: Mapping[str, Any], *, is_strict: bool) -> str | None:
    """Returns why OpenAI's endpoints would not take a schema, None if they would."""
    if len(json.dumps(schema, separators=(",", ":"))) > MAX_SCHEMA:
        return f"it has more than {MAX_SCHEMA:,} characters."
    return next(_not_strict(schema, ()), None) if is_strict else None


def problem_of_arguments(schema: Mapping[str, Any]) -> str | None:
    """Returns why no arguments of a function can be held to a schema, None if they can."""
    return _verdict(_grammar(schema))


@lru_cache(MOST_VERDICTS)
def _verdict(grammar: str) -> str | None:
    limits = LLParserLimits(verbose_errors=False)
    with _COMPILING:
        matcher = LLMatcher(_BYTES, grammar, log_level=0, limits=limits)
        if not matcher.is_error():
            matcher.compute_bitmask()  # that nothing can come first is found here
    return reason_of(matcher.get_error()) if matcher.is_error() else None


def reason_of(error: str) -> str:
    """Returns what llguidance says of a schema, in a line."""
    if error.startswith("NoExtension"):
        return ENDLESS
    return " ".join(error.replace("<non-verbose/>", "").split())[:500]


def _not_strict(schema: Any, at: tuple[str | int, ...]) -> Iterator[str]:
    """What OpenAI's strict mode does not allow, with the place."""
    if not isinstance(schema, dict):
        return
    if not at and schema.get("type") != "object":
        got = json.dumps(schema.get("type"))
        yield f"schema must be a JSON Schema of 'type: \"object\"', got 'type: {got}'."
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False:
            yield f"In context={at}, 'additionalProperties' is required to be supplied and to be false."
        required = schema.get("required") or []
        lacking = [key for key, _ in _items(properties) if key not in required]
        if lacking:
            keys = ", ".join(f"'{key}'" for key in lacking)
            must = (
                "'required' is required to be supplied and to be an array including every key in properties"
            )
            yield f"In context={at}, {must}. Missing {keys}."
    for key in ("properties", "$defs", "definitions"):
        for name, below in _items(schema.get(key)):
            yield from _not_strict(below, (*at, key, name))
    for key in ("anyOf", "allOf", "oneOf", "prefixItems"):
        for number, below in enumerate(schema[key] if isinstance(schema.get(key), list) else ()):
            yield from _not_strict(below, (*at, key, number))
    yield from _not_strict(schema.get("items"), (*at, "items"))


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _invalid_schema(name: str, problem: str) -> ResponseFormatInvalid:
    message = f"Invalid schema for response_format '{name}': {problem}"
    return ResponseFormatInvalid(message, "json_schema.schema", "invalid_json_schema")


def _field(raw: Any, at: str, key: str, kind: type) -> Any:
    """A required member of that type."""
    if not isinstance(raw, dict):
        raise _wrong_type(at, dict, raw)
    param = f"{at}.{key}" if at else key
    if key not in raw:
        message = f"Missing required parameter: '{param}'."
        raise ResponseFormatInvalid(message, param, "missing_required_parameter")
    if type(raw[key]) is not kind:
        raise _wrong_type(param, kind, raw[key])
    return raw[key]


def _wrong_type(param: str, kind: type, value: Any) -> ResponseFormatInvalid:
    names = {dict: "an object", str: "a string", bool: "a boolean", list: "an array", type(None): "null"}
    got = names.get(type(value), "a number")
    message = (
        f"Invalid type for '{param or 'response_format'}': expected {names[kind]}, but got {got} instead."
    )
    return ResponseFormatInvalid(message, param, "invalid_type")


def _refuse_unknown(raw: Mapping[str, Any], known: set[str], at: str) -> None:
    for key in raw:
        if key not in known:
            param = f"{at}.{key}" if at else key
            raise ResponseFormatInvalid(f"Unknown parameter: '{param}'.", param, "unknown_parameter")
