"""Messages of a chat request: checked, and as a chat template gets them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.chat.calls import refusals_of_calls
from app.errors import ApiError, BadRequest
from methods.messages import CHAT_ROLES, THOUGHTS

ECHOED = frozenset({"refusal", "annotations", "audio", "function_call", "parsed", "content_parts", "id"})
"""What clients send back of a message that they were given, and no template reads."""
TEXTS = {"text": "text", "refusal": "refusal"}
"""Types of content parts that are text, by the field that holds it."""


def refusals_of_messages(messages: Any, at: str = "messages") -> Iterator[ApiError]:
    """Yields what is wrong with each message."""
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, Mapping):
            yield from _of_message(message, f"{at}[{number}]")
    if isinstance(messages, list):
        yield from refusals_of_calls(messages, at)


def chat_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns checked messages without what is null or was only sent back."""
    return [_clean(message) for message in messages]


def _of_message(message: Mapping[str, Any], at: str) -> Iterator[ApiError]:
    role = message.get("role")
    if role is None:
        yield _fault(f"Missing required parameter: '{at}.role'.", f"{at}.role", "missing_required_parameter")
    elif role not in CHAT_ROLES:
        known = ", ".join(f"'{one}'" for one in CHAT_ROLES)
        message_ = f"Invalid value: {str(role)[:80]!r} for '{at}.role'. Supported values are: {known}."
        yield _fault(message_, f"{at}.role", "invalid_value")
    for name in THOUGHTS:
        if not isinstance(message.get(name), str | None):
            told = f"Invalid type for '{at}.{name}': expected a string."
            yield _fault(told, f"{at}.{name}", "invalid_type")
    content, at = message.get("content"), f"{at}.content"
    if isinstance(content, list):
        yield from _of_parts(content, at)
    elif content is None:
        if not (role == "assistant" and any(message.get(name) for name in ("tool_calls", "refusal"))):
            yield _fault(f"Missing required parameter: '{at}'.", at, "missing_required_parameter")
    elif not isinstance(content, str):
        told = f"Invalid type for '{at}': expected a string or an array of parts."
        yield _fault(told, at, "invalid_type")


def _of_parts(parts: Sequence[Any], at: str) -> Iterator[ApiError]:
    if not parts:
        yield _fault(f"Invalid value for '{at}': it has no parts.", at, "invalid_value")
    for number, part in enumerate(parts):
        where = f"{at}[{number}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in TEXTS:
            told = f"Invalid value for '{where}': models here read text only, so its type must be 'text'."
            yield _fault(told, where, "invalid_value")
        elif not isinstance(part.get(TEXTS[kind]), str):
            where = f"{where}.{TEXTS[kind]}"
            yield _fault(f"Invalid type for '{where}': expected a string.", where, "invalid_type")


def _clean(message: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in message.items() if value is not None and name not in ECHOED}
    content = message.get("content")
    if isinstance(content, list):
        kept["content"] = [{"type": "text", "text": part[TEXTS[part["type"]]]} for part in content]
    elif content is None and isinstance(message.get("refusal"), str):
        kept["content"] = message["refusal"]
    if not kept.get("tool_calls"):
        kept.pop("tool_calls", None)
    else:
        kept["tool_calls"] = [_clean_call(call) for call in kept["tool_calls"]]
    return kept


def _clean_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a call without what the client's helpers add to it."""
    function = {"name": call["function"]["name"], "arguments": call["function"]["arguments"] or "{}"}
    return {"id": call["id"], "type": "function", "function": function}


def _fault(message: str, param: str, code: str) -> BadRequest:
    return BadRequest(message, param=param, code=code)
