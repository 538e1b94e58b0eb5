"""What a message of a conversation is: a role and a text, perhaps a thought and tool calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from graders.strict_json import StrictJsonError, loads

ROLES = ("system", "developer", "user", "assistant", "tool")
CHAT_ROLES = (*ROLES, "function")
OF_TOOLS = ("tool", "function")
"""Roles whose content is what a tool returned: text, or any JSON."""
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Fields of a thought, by the names that chat servers give it; one is as good as another."""


class RowInvalid(ValueError):
    """The row is none of its method; the message says why."""


def check_message(message: Any, where: str, roles: Sequence[str] = ROLES) -> None:
    """Raises `RowInvalid` if this is no message of one of these roles with a text."""
    if not isinstance(message, dict):
        raise RowInvalid(f"{where} must be an object, not {kind_of(message)}")
    role = message.get("role")
    if role is None:
        raise RowInvalid(f"{where} has no 'role'")
    if role not in roles:
        raise RowInvalid(f"{where}.role is {role!r:.40}; known are {', '.join(roles)}")
    _check_calls(message, where)
    _check_thoughts(message, where)
    content = message.get("content")
    if content is None:
        if role == "assistant" and (message.get("tool_calls") or message.get("function_call")):
            return
        raise RowInvalid(f"{where} has no 'content'")
    _check_content(content, f"{where}.content", is_result=role in OF_TOOLS)


def check_tools(tools: Any) -> None:
    """Raises `RowInvalid` unless there are none or a list of them."""
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise RowInvalid("'tools' must be a list of objects")


def text_of(content: Any) -> str:
    """A message's content as text: a string, the text parts joined, or the JSON that a tool returned."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(_is_text(part) for part in content):
        return "".join(part["text"] for part in content)
    return "" if content is None else json.dumps(content, ensure_ascii=False)


def thought_of(message: Mapping[str, Any]) -> str:
    """Returns the thought that a message was written with, "" without one."""
    return next((found for name in THOUGHTS if (found := message.get(name))), "")


def arguments_object(arguments: Any) -> dict[str, Any]:
    """Returns the arguments of a call, an object or the JSON text of one. Raises `RowInvalid`.

    Keys stay in their order. A number keeps its value, and its spelling as far as Python has one for it: 1.0
    and 1 stay apart, 1e2 becomes 100.0.
    """
    if isinstance(arguments, dict):
        return arguments
    if not isinstance(arguments, str):
        raise RowInvalid(f"must be a JSON object, as text, not {kind_of(arguments)}")
    try:
        found = loads(arguments)
    except StrictJsonError as error:
        raise RowInvalid(f"must be a JSON object, as text, and is not valid JSON: {error.message}") from None
    if not isinstance(found, dict):
        raise RowInvalid(f"must be a JSON object, as text, not {kind_of(found)}")
    return found


def kind_of(value: Any) -> str:
    """What JSON calls it, for a sentence."""
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _check_content(content: Any, where: str, *, is_result: bool) -> None:
    """A tool's result may be any object or list, which the model reads as JSON; but no image."""
    if isinstance(content, list):
        if not content:
            raise RowInvalid(f"{where} is empty")
        for part in content:
            _check_part(part, where, is_result)
    elif not isinstance(content, str) and not (is_result and isinstance(content, dict)):
        raise RowInvalid(f"{where} must be text, not {kind_of(content)}")


def _check_part(part: Any, where: str, is_result: bool) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("image_url", "image", "input_image"):
        raise RowInvalid(f"{where} holds an image; only text is supported")
    if not is_result and not _is_text(part):
        raise RowInvalid(f"{where} holds a part that is not text")


def _is_text(part: Any) -> bool:
    is_part = isinstance(part, dict) and part.get("type") in ("text", "input_text")
    return is_part and isinstance(part.get("text"), str)


def _check_thoughts(message: Mapping[str, Any], where: str) -> None:
    for name in THOUGHTS:
        if not isinstance(message.get(name), str | None):
            raise RowInvalid(f"{where}.{name} must be text, not {kind_of(message[name])}")


def _check_calls(message: Mapping[str, Any], where: str) -> None:
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise RowInvalid(f"{where}.tool_calls must be a list, not {kind_of(calls)}")
    for place, call in enumerate(calls or ()):
        at = f"{where}.tool_calls[{place}]"
        if not isinstance(call, dict):
            raise RowInvalid(f"{at} must be an object, not {kind_of(call)}")
        _check_function(call.get("function"), f"{at}.function")
    if message.get("function_call") is not None:
        _check_function(message["function_call"], f"{where}.function_call")


def _check_function(function: Any, where: str) -> None:
    if not isinstance(function, dict):
        raise RowInvalid(f"{where} must be an object, not {kind_of(function)}")
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise RowInvalid(f"{where}.name must be the name of a function")
    if "arguments" in function:
        try:
            arguments_object(function["arguments"])
        except RowInvalid as problem:
            raise RowInvalid(f"{where}.arguments {problem}") from None
