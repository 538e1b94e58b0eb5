"""Reads supervised and preference rows from JSONL, as strictly as methods/rows.py. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from methods.messages import CHAT_ROLES, RowInvalid, check_message, check_tools, kind_of
from methods.rows import Check, check_object, check_row

MAX_FUNCTIONS = 128
MIN_SUPERVISED_ROWS = 10
"""Fewest rows of a supervised training file, as at OpenAI."""


def row_check(method: str) -> Check:
    """What a row must be for a method."""
    return {"supervised": _check_chat, "dpo": _check_preference}.get(method, check_row)


def too_few(method: str, n_rows: int) -> str | None:
    """Says what a training file lacks for a method when it has too few rows."""
    if method != "supervised" or n_rows >= MIN_SUPERVISED_ROWS:
        return None
    return f"Training file has {n_rows} example(s), but must have at least {MIN_SUPERVISED_ROWS} examples"


def learned_messages(item: Mapping[str, Any]) -> list[int]:
    """Places of the assistant's messages that count: those without a weight of 0."""
    return [
        place
        for place, message in enumerate(item["messages"])
        if message["role"] == "assistant" and message.get("weight", 1) == 1
    ]


def _check_chat(item: Any) -> None:
    check_object(item)
    if "messages" not in item and "input" in item:
        raise RowInvalid("'messages' is missing; a preference row is for the method 'dpo'")
    if "messages" not in item and "prompt" in item:
        raise RowInvalid("'messages' is missing; rows of 'prompt' and 'completion' are for completion models")
    _check_messages(item.get("messages"), "messages")
    _check_options(item, "")
    if not any(message["role"] == "assistant" for message in item["messages"]):
        raise RowInvalid(
            "there is no message from the assistant to learn from; rows that end with the user's message are"
            " for the method 'reinforcement'"
        )
    if not learned_messages(item):
        raise RowInvalid("every message from the assistant has weight 0: there is nothing to learn from")


def _check_preference(item: Any) -> None:
    check_object(item)
    given = item.get("input")
    if given is None:
        hint = "; a row of 'messages' is for the method 'supervised'" if "messages" in item else ""
        raise RowInvalid(f"'input' is missing{hint}")
    if not isinstance(given, dict):
        raise RowInvalid(f"'input' must be an object, not {kind_of(given)}")
    _check_messages(given.get("messages"), "input.messages")
    _check_options(given, "input.")
    if given["messages"][-1]["role"] == "assistant":
        raise RowInvalid("the last message of 'input' is from the assistant; answers go in the two outputs")
    for name in ("preferred_output", "non_preferred_output"):
        _check_output(item.get(name), name)
    if item["preferred_output"] == item["non_preferred_output"]:
        raise RowInvalid("'preferred_output' and 'non_preferred_output' are the same")


def _check_messages(messages: Any, where: str) -> None:
    if messages is None:
        raise RowInvalid(f"'{where}' is missing")
    if not isinstance(messages, list) or not messages:
        raise RowInvalid(f"'{where}' must be a list with at least one message")
    for place, message in enumerate(messages):
        check_message(message, f"{where}[{place}]", CHAT_ROLES)
        _check_weight(message, f"{where}[{place}]")


def _check_weight(message: dict[str, Any], where: str) -> None:
    if "weight" not in message:
        return
    if message["role"] != "assistant":
        raise RowInvalid(f"{where} has a 'weight', which only messages from the assistant have")
    weight = message["weight"]
    if isinstance(weight, bool) or weight not in (0, 1):
        raise RowInvalid(f"{where}.weight must be 0 or 1, not {weight!r:.40}")


def _check_output(output: Any, name: str) -> None:
    if output is None:
        raise RowInvalid(f"'{name}' is missing")
    if not isinstance(output, list) or len(output) != 1:
        raise RowInvalid(f"'{name}' must be a list with one message")
    check_message(output[0], f"{name}[0]", CHAT_ROLES)
    if output[0]["role"] != "assistant":
        raise RowInvalid(f"{name}[0] must be from the assistant, not '{output[0]['role']}'")


def _check_options(item: dict[str, Any], where: str) -> None:
    check_tools(item.get("tools"))
    functions = item.get("functions")
    if functions is not None:
        is_list = isinstance(functions, list) and all(isinstance(each, dict) for each in functions)
        if not is_list or not 1 <= len(functions) <= MAX_FUNCTIONS:
            raise RowInvalid(f"'{where}functions' must be a list of 1 to {MAX_FUNCTIONS} objects")
    if not isinstance(item.get("parallel_tool_calls", True), bool):
        raise RowInvalid(f"'{where}parallel_tool_calls' must be true or false")
