"""Tool calls in the messages of a request, and the results that belong to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.errors import ApiError, BadRequest
from methods.messages import RowInvalid, arguments_object

ALONE = "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"


def refusals_of_calls(messages: Sequence[Any], at: str) -> Iterator[ApiError]:
    """Yields what is wrong with calls, and where calls and their results do not belong together."""
    open_ids: list[str] = []
    place = -1
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            continue
        here = f"{at}[{number}]"
        if message.get("role") == "tool":
            yield from _of_result(message, here, open_ids, is_behind_calls=place >= 0)
            continue
        yield from _unanswered(open_ids, at, place)
        open_ids, place = [], -1
        if message.get("role") == "assistant" and message.get("tool_calls"):
            yield from _of_calls(message["tool_calls"], f"{here}.tool_calls")
            open_ids, place = _ids(message["tool_calls"]), number
    yield from _unanswered(open_ids, at, place)


def _of_result(
    message: Mapping[str, Any], at: str, open_ids: list[str], *, is_behind_calls: bool
) -> Iterator[ApiError]:
    call_id = message.get("tool_call_id")
    if call_id is None:
        yield _missing(f"{at}.tool_call_id")
    elif not isinstance(call_id, str):
        told = f"Invalid type for '{at}.tool_call_id': expected a string."
        yield BadRequest(told, param=f"{at}.tool_call_id", code="invalid_type")
    elif not is_behind_calls:
        yield BadRequest(f"Invalid parameter: {ALONE}.", param=f"{at}.role", code="invalid_value")
    elif call_id not in open_ids:
        told = f"Invalid value for '{at}.tool_call_id': no call before it has the id {call_id[:80]!r}"
        yield BadRequest(
            f"{told}, or it was answered already.", param=f"{at}.tool_call_id", code="invalid_value"
        )
    else:
        open_ids.remove(call_id)


def _unanswered(open_ids: Sequence[str], at: str, place: int) -> Iterator[ApiError]:
    if open_ids:
        told = (
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each"
            f" 'tool_call_id'. These of '{at}[{place}]' have no response: {', '.join(open_ids)}."
        )
        yield BadRequest(told, param=at, code="invalid_value")


def _of_calls(calls: Any, at: str) -> Iterator[ApiError]:
    if not isinstance(calls, list):
        yield BadRequest(f"Invalid type for '{at}': expected an array.", param=at, code="invalid_type")
        return
    known: set[str] = set()
    for number, call in enumerate(calls):
        yield from _of_call(call, f"{at}[{number}]")
        for call_id in _ids([call]):
            if call_id in known:
                where = f"{at}[{number}].id"
                told = f"Invalid value for '{where}': two calls of the message have the id {call_id[:80]!r}."
                yield BadRequest(told, param=where, code="invalid_value")
            known.add(call_id)


def _of_call(call: Any, at: str) -> Iterator[ApiError]:
    if not isinstance(call, Mapping):
        yield BadRequest(f"Invalid type for '{at}': expected an object.", param=at, code="invalid_type")
        return
    if call.get("type", "function") != "function":
        told = f"Invalid value for '{at}.type': models here call functions only."
        yield BadRequest(told, param=f"{at}.type", code="unsupported_parameter")
    if not isinstance(call.get("id"), str) or not call["id"]:
        yield _missing(f"{at}.id")
    function = call.get("function")
    if not isinstance(function, Mapping):
        yield _missing(f"{at}.function")
        return
    if not isinstance(function.get("name"), str) or not function["name"]:
        yield _missing(f"{at}.function.name")
    if function.get("arguments") is None:
        yield _missing(f"{at}.function.arguments")
        return
    try:
        arguments_object(function["arguments"] or "{}")
    except RowInvalid as problem:
        where = f"{at}.function.arguments"
        yield BadRequest(f"Invalid value for '{where}': it {problem}.", param=where, code="invalid_value")


def _ids(calls: Any) -> list[str]:
    found = [call.get("id") for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
    return [call_id for call_id in found if isinstance(call_id, str)]


def _missing(at: str) -> BadRequest:
    return BadRequest(f"Missing required parameter: '{at}'.", param=at, code="missing_required_parameter")
