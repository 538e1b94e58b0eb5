"""Puts a pydantic error into OpenAI's words: code, field path and message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from app.errors import BadRequest, Refusals
from methods.hyperparameters import AUTO, AUTO_SWITCH, OR_AUTO

HIDDEN = "~"
"""Union tags start with this; they are no part of a field's path."""

_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "a boolean",
    "bool_parsing": "a boolean",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "list_type": "an array",
}
_BOUND = {
    "greater_than": ("below_min_value", "gt", ">"),
    "greater_than_equal": ("below_min_value", "ge", ">="),
    "less_than": ("above_max_value", "lt", "<"),
    "less_than_equal": ("above_max_value", "le", "<="),
}
_LENGTH = {
    "string_too_long": ("string_above_max_length", "max_length", "at most", "characters"),
    "string_too_short": ("string_below_min_length", "min_length", "at least", "characters"),
}


Read = TypeVar("Read", bound=BaseModel)


class Fault(NamedTuple):
    message: str
    param: str | None
    code: str | None


def read_as(model: type[Read], value: Any, param: str) -> Read:
    """Reads a field whose form depends on another one. Raises `BadRequest` with all that is wrong."""
    try:
        return model.model_validate({} if value is None else value)
    except ValidationError as problem:
        errors = [{**error, "loc": ("body", param, *error["loc"])} for error in problem.errors()]
        refusals = Refusals()
        for fault in describe_all(errors):
            refusals.all.append(BadRequest(fault.message, param=fault.param, code=fault.code))
        raise refusals.together() from None


def describe_all(errors: Sequence[Mapping[str, Any]]) -> list[Fault]:
    """Returns what is wrong with a request, one fault a field: the forms of a union each say theirs."""
    by_param: dict[str | None, Fault] = {}
    for error in errors:
        fault = describe(error)
        by_param.setdefault(fault.param, fault)
    return list(by_param.values())


def describe(error: Mapping[str, Any]) -> Fault:
    """Returns one thing that is wrong with a request."""
    kind, context, got = error["type"], error.get("ctx", {}), error.get("input")
    param = field_path(error["loc"])
    at = f" for '{param}'" if param else ""
    if kind == "json_invalid" or (kind == "missing" and param is None):
        return Fault("The request needs a JSON object as its body.", None, "invalid_json")
    if kind == "missing":
        return Fault(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    if kind == "extra_forbidden":
        return Fault(f"Unknown parameter: '{param}'.", param, "unknown_parameter")
    if kind in _EXPECTED:
        expected = _EXPECTED[kind] + (" or 'auto'" if OR_AUTO in error["loc"] else "")
        message = f"Invalid type{at}: expected {expected}, but got {_described(got)} instead."
        return Fault(message, param, "invalid_type")
    if kind in _BOUND:
        suffix, key, sign = _BOUND[kind]
        number = "integer" if isinstance(context[key], int) else "decimal"
        message = f"Invalid value{at}: expected a value {sign} {context[key]}, but got {got} instead."
        return Fault(message, param, f"{number}_{suffix}")
    if kind in _LENGTH:
        code, key, most, unit = _LENGTH[kind]
        message = (
            f"Invalid length{at}: expected {most} {context[key]} {unit}, but got {len(got or '')} instead."
        )
        return Fault(message, param, code)
    if kind == "too_long":
        thing = "object_above_max_properties" if isinstance(got, Mapping) else "array_above_max_length"
        message = f"Invalid value{at}: at most {context['max_length']} entries are allowed."
        return Fault(message, param, thing)
    if kind == "literal_error" and AUTO in error["loc"]:
        message = f"Invalid value: {_shown(got)}{at}: expected a number or 'auto'."
        return Fault(message, param, "invalid_value")
    if kind == "literal_error" and AUTO_SWITCH in error["loc"]:
        message = f"Invalid value: {_shown(got)}{at}: expected true, false or 'auto'."
        return Fault(message, param, "invalid_value")
    if kind == "literal_error":
        message = f"Invalid value: {_shown(got)}{at}. Supported values are: {context['expected']}."
        return Fault(message, param, "invalid_value")
    return Fault(f"Invalid value{at}: {error['msg'].removesuffix('.')}.", param, "invalid_value")


def field_path(loc: Sequence[str | int]) -> str | None:
    """Writes `("body", "method", "graders", 0, "name")` as `method.graders[0].name`."""
    path = ""
    for part in loc[1:]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]" and not part.startswith(HIDDEN):
            path += f".{part[:80]}" if path else part[:80]
    return path or None


def _described(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "an integer", float: "a decimal", str: "a string", list: "an array"}
    return names.get(type(value), "an object")


def _shown(value: Any) -> str:
    return repr(value[:80]) if isinstance(value, str) else repr(value)[:80]
