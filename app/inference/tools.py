"""Tools of a request: the functions that a model may call, and whether it must."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from app.errors import ApiError, BadRequest
from methods.response_format import problem_of_arguments, problem_of_schema

MOST_TOOLS = 128
"""As at OpenAI."""
CHOICES = ("none", "auto", "required")
MODES = ("auto", "required")
FUNCTION_MEMBERS = ("name", "description", "parameters", "strict")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Form(NamedTuple):
    """Says how an endpoint writes a function: its members below `function`, as chats do, or beside `type`."""

    below: str

    def function(self, tool: Mapping[str, Any]) -> Any:
        """Returns what holds the members of a tool's function."""
        return tool.get(self.below) if self.below else tool

    def place(self, at: str, member: str) -> str:
        """Returns the path of a member of the function of a tool at that path."""
        return ".".join(part for part in (at, self.below, member) if part)


OF_CHATS, OF_RESPONSES = Form("function"), Form("")


class Offered(NamedTuple):
    """Holds the tools that a model is shown, in the form of chats, and the choice among them."""

    tools: list[dict[str, Any]] | None
    choice: Any


def offered(tools: Sequence[Mapping[str, Any]] | None, choice: Any, form: Form) -> Offered:
    """Returns what a request that is right offers. Of `allowed_tools` only those are shown."""
    if not tools:
        return Offered(None, None)
    shown = [_as_chats_have_it(form.function(tool)) for tool in tools]
    if not isinstance(choice, Mapping):
        return Offered(shown, choice)
    if choice.get("type") == "allowed_tools":
        allowed = _allowed(choice, form)
        names = {_name(tool, form) for tool in allowed["tools"]}
        return Offered([one for one in shown if one["function"]["name"] in names], allowed["mode"])
    return Offered(shown, {"type": "function", "function": {"name": _name(choice, form)}})


def refusals_of_tools(tools: Any, choice: Any, form: Form) -> Iterator[ApiError]:
    """Yields what is wrong with the tools of a request, and with the choice among them."""
    names: list[str] = []
    has_faults = not isinstance(tools, list | None)
    if isinstance(tools, list):
        if len(tools) > MOST_TOOLS:
            told = f"Invalid 'tools': array too long. Expected an array with maximum length {MOST_TOOLS},"
            yield _fault(f"{told} but got one of {len(tools)}.", "tools", "array_above_max_length")
            return
        for number, tool in enumerate(tools):
            try:
                names.append(_checked_name(tool, f"tools[{number}]", form, names))
            except BadRequest as fault:
                has_faults = True
                yield fault
    if choice is not None:
        yield from _of_choice(choice, names, form, has_faults=has_faults)


def _checked_name(tool: Any, at: str, form: Form, names: Collection[str]) -> str:
    """Returns the name of a function that is right. Raises `BadRequest`."""
    if not isinstance(tool, Mapping):
        raise _fault(f"Invalid type for '{at}': expected an object.", at, "invalid_type")
    kind = tool.get("type")
    if kind is None:
        raise _missing(f"{at}.type")
    if kind != "function":
        told = f"Invalid value: {str(kind)[:80]!r} for '{at}.type'. Models here call functions only."
        raise _fault(told, f"{at}.type", "unsupported_parameter")
    function = form.function(tool)
    if not isinstance(function, Mapping):
        raise _missing(f"{at}.{form.below}")
    name = _checked_text(function.get("name"), form.place(at, "name"))
    if name in names:
        told = f"Invalid value for 'tools': two functions have the name {name!r}."
        raise _fault(told, form.place(at, "name"), "invalid_value")
    for member, type_, word in (("description", str, "a string"), ("strict", bool, "a boolean")):
        if not isinstance(function.get(member), type_ | None):
            place = form.place(at, member)
            raise _fault(f"Invalid type for '{place}': expected {word}.", place, "invalid_type")
    _check_parameters(function, name, form.place(at, "parameters"))
    return name


def _checked_text(name: Any, at: str) -> str:
    if name is None:
        raise _missing(at)
    if not isinstance(name, str):
        raise _fault(f"Invalid type for '{at}': expected a string.", at, "invalid_type")
    if not _NAME.fullmatch(name):
        told = "it may have 1 to 64 letters, digits, underscores and dashes"
        raise _fault(f"Invalid value for '{at}': {told}.", at, "invalid_value")
    return name


def _check_parameters(function: Mapping[str, Any], name: str, at: str) -> None:
    schema = function.get("parameters")
    if schema is None:
        return
    if not isinstance(schema, Mapping):
        raise _fault(f"Invalid type for '{at}': expected an object.", at, "invalid_type")
    is_strict = bool(function.get("strict"))
    problem = problem_of_schema(schema, is_strict=is_strict)
    if problem is None and schema and schema.get("type") != "object":
        problem = "schema must be a JSON Schema of 'type: \"object\"'."
    if problem is None and is_strict:
        problem = problem_of_arguments(schema)
    if problem is not None:
        told = f"Invalid schema for function '{name}': {problem}"
        raise _fault(told, at, "invalid_function_parameters")


def _of_choice(choice: Any, names: Sequence[str], form: Form, *, has_faults: bool) -> Iterator[ApiError]:
    try:
        asked = _checked_choice(choice, form)
    except BadRequest as fault:
        yield fault
        return
    if (asked or choice == "required") and not names and not has_faults:
        told = "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."
        yield _fault(told, "tool_choice", "invalid_value")
        return
    for name in asked:
        if name not in names and not has_faults:
            told = f"Invalid value for 'tool_choice': the function {name!r} is not among the 'tools'."
            yield _fault(told, "tool_choice", "invalid_value")


def _checked_choice(choice: Any, form: Form) -> list[str]:
    """Returns the functions that a choice names. Raises `BadRequest`."""
    if isinstance(choice, str) and choice in CHOICES:
        return []
    kind = choice.get("type") if isinstance(choice, Mapping) else None
    if kind == "function":
        below = form.place("tool_choice", "name")
        function = form.function(choice)
        return [_checked_text(function.get("name") if isinstance(function, Mapping) else None, below)]
    if kind == "allowed_tools":
        return _checked_allowed(choice, form)
    known = ", ".join(f"'{one}'" for one in CHOICES)
    told = f"Invalid value for 'tool_choice'. Supported values are {known}, and a function by its name."
    raise _fault(told, "tool_choice", "invalid_value")


def _checked_allowed(choice: Mapping[str, Any], form: Form) -> list[str]:
    allowed = _allowed(choice, form)
    at = "tool_choice.allowed_tools" if form.below else "tool_choice"
    if not isinstance(allowed, Mapping) or allowed.get("mode") not in MODES:
        told = f"Invalid value for '{at}.mode'. Supported values are 'auto' and 'required'."
        raise _fault(told, f"{at}.mode", "invalid_value")
    tools = allowed.get("tools")
    if not isinstance(tools, list) or not tools:
        told = f"Invalid type for '{at}.tools': expected an array of functions that is not empty."
        raise _fault(told, f"{at}.tools", "invalid_type")
    names = []
    for number, tool in enumerate(tools):
        function = form.function(tool) if isinstance(tool, Mapping) else None
        place = form.place(f"{at}.tools[{number}]", "name")
        names.append(_checked_text(function.get("name") if isinstance(function, Mapping) else None, place))
    return names


def _allowed(choice: Mapping[str, Any], form: Form) -> Any:
    return choice.get("allowed_tools") if form.below else choice


def _name(tool: Mapping[str, Any], form: Form) -> str:
    name: str = form.function(tool)["name"]
    return name


def _as_chats_have_it(function: Mapping[str, Any]) -> dict[str, Any]:
    members = {name: function[name] for name in FUNCTION_MEMBERS if function.get(name) is not None}
    return {"type": "function", "function": members}


def _missing(at: str) -> BadRequest:
    return _fault(f"Missing required parameter: '{at}'.", at, "missing_required_parameter")


def _fault(message: str, param: str, code: str) -> BadRequest:
    return BadRequest(message, param=param, code=code)
