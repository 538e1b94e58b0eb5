"""Puts pydantic's findings into OpenAI's words and codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from graders.types import GraderInvalid

_EXPECTED = {
    "string_type": "a string",
    "float_type": "a number",
    "bool_type": "a boolean",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}

_BOUNDS = {
    "string_too_long": ("string_above_max_length", "at most {max_length} characters"),
    "string_too_short": ("string_below_min_length", "at least {min_length} character"),
    "too_long": ("invalid_value", "at most {max_length} entries"),
    "too_short": ("invalid_value", "at least {min_length} entry"),
    "greater_than": ("decimal_below_min_value", "more than {gt}"),
    "greater_than_equal": ("decimal_below_min_value", "{ge} or more"),
    "less_than_equal": ("decimal_above_max_value", "{le} or less"),
    "finite_number": ("invalid_value", "a finite number"),
}

_ITEM_TAGS = ("by_name", "by_rule")
"""Tags of the union behind a collection's `items`. Other tags of ours start with `~`."""
_TELLING = ("compare", "type")
"""Keys that tell the members of a union apart."""


def from_pydantic(error: ValidationError, raw: Any, at: str) -> GraderInvalid:
    """Returns the findings as one `GraderInvalid`, which is the first of them and knows of the others.

    `raw` is what was validated, and `at` its path in the grader.
    """
    by_param: dict[str, GraderInvalid] = {}
    for found in error.errors(include_url=False):
        invalid = _invalid(found, raw, at)
        by_param.setdefault(invalid.param, invalid)  # the forms of a union each say what they lack
    return GraderInvalid.together(list(by_param.values()))


def _invalid(found: ErrorDetails, raw: Any, at: str) -> GraderInvalid:
    param = _param(found["loc"], raw, at)
    kind, context = found["type"], found.get("ctx", {})
    if kind == "missing":
        return missing(param)
    if kind == "extra_forbidden":
        return unknown(param)
    if kind in _EXPECTED:
        return invalid_type(param, _EXPECTED[kind], found["input"])
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        return _wrong_tag(found, param)
    if kind == "literal_error":
        return _not_among(param, found["input"], context["expected"])
    if kind in ("too_long", "too_short") and isinstance(found["input"], str):
        kind = f"string_{kind}"  # pydantic speaks so of a text whose length is checked after its form
    if kind in _BOUNDS:
        code, expected = _BOUNDS[kind]
        message = f"Invalid value for '{param}': expected {expected.format(**context)}."
        return GraderInvalid(message, param=param, code=code)
    if kind == "grader_invalid":
        param = ".".join(part for part in (param, context["param"]) if part)
        return GraderInvalid(
            f"Invalid value for '{param}': {context['message']}", param=param, code=context["code"]
        )
    return GraderInvalid(f"Invalid value for '{param}': {found['msg']}.", param=param)


def missing(param: str) -> GraderInvalid:
    """Returns the error for a parameter that is required and absent."""
    return GraderInvalid(
        f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
    )


def unknown(param: str) -> GraderInvalid:
    """Returns the error for a parameter that there is not."""
    return GraderInvalid(f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")


def invalid_type(param: str, expected: str, got: Any) -> GraderInvalid:
    """Returns the error for a value of another JSON type than `expected`, which is named with its article."""
    return GraderInvalid(
        f"Invalid type for '{param or 'grader'}': expected {expected}, but got {_described(got)} instead.",
        param=param,
        code="invalid_type",
    )


def invalid_value(param: str, got: str, supported: Sequence[str]) -> GraderInvalid:
    """Returns the error for a text outside an enumeration, whose values the message lists."""
    shown = got if len(got) <= 60 else got[:60] + "..."
    *most, last = (f"'{value}'" for value in supported)
    separator = ", and " if len(most) > 1 else " and "
    known = f"{', '.join(most)}{separator}{last}" if most else last
    return GraderInvalid(f"Invalid value: '{shown}'. Supported values are: {known}.", param=param)


def _wrong_tag(found: ErrorDetails, param: str) -> GraderInvalid:
    """Returns the error for an object whose telling key (`compare`) is absent or unknown."""
    tag = found["ctx"]["discriminator"].strip("'")
    if found["type"] == "union_tag_not_found":
        return missing(f"{param}.{tag}")
    return _not_among(f"{param}.{tag}", found["input"][tag], found["ctx"]["expected_tags"])


def _not_among(param: str, got: Any, listed: str) -> GraderInvalid:
    """Returns the error for a value outside an enumeration, which pydantic lists as `'a', 'b' or 'c'`."""
    if not isinstance(got, str):
        return invalid_type(param, "a string", got)
    supported = [value.strip().strip("'") for value in listed.replace(" or ", ", ").split(",")]
    return invalid_value(param, got, supported)


def _param(loc: Sequence[str | int], raw: Any, at: str) -> str:
    """Returns pydantic's location as a path in what the user sent, without the union tags that it adds."""
    path, here = at, raw
    tag_expected = False
    previous: str | int = ""
    for step in loc:
        if (previous == "items" and step in _ITEM_TAGS) or str(step).startswith("~"):
            continue
        if tag_expected and isinstance(here, dict) and step in map(here.get, _TELLING):
            tag_expected = False
            continue
        path = f"{path}[{step}]" if isinstance(step, int) else f"{path}.{step}" if path else step
        here = _below(here, step)
        tag_expected, previous = True, step
    return path


def _below(value: Any, step: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        return value[step]
    return None


def _described(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
