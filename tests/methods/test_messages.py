"""Messages of rows: tool calls, thoughts and results are read as strictly as texts."""

from __future__ import annotations

from typing import Any

import pytest

from methods.messages import CHAT_ROLES, RowInvalid, check_message, text_of

NOT_AN_OBJECT = "messages[0].tool_calls[0].function.arguments must be a JSON object, as text"


def calling(function: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": function}]}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (calling({"name": "f", "arguments": "[1]"}), f"{NOT_AN_OBJECT}, not a list"),
        (calling({"name": "f", "arguments": "7"}), f"{NOT_AN_OBJECT}, not a number"),
        (calling({"name": "f", "arguments": '"{}"'}), f"{NOT_AN_OBJECT}, not text"),
        (calling({"name": "f", "arguments": ""}), f"{NOT_AN_OBJECT}, and is not valid JSON"),
        (calling({"name": "f", "arguments": "{'a': 1}"}), f"{NOT_AN_OBJECT}, and is not valid JSON"),
        (calling({"name": "f", "arguments": '{"a": NaN}'}), f"{NOT_AN_OBJECT}, and is not valid JSON"),
        (calling({"name": "f", "arguments": None}), f"{NOT_AN_OBJECT}, not null"),
        (calling({"name": "f", "arguments": [{"a": 1}]}), f"{NOT_AN_OBJECT}, not a list"),
        (calling({"arguments": "{}"}), "tool_calls[0].function.name must be the name of a function"),
        (calling(None), "tool_calls[0].function must be an object, not null"),
        ({"role": "assistant", "tool_calls": {"id": "a"}}, "tool_calls must be a list, not an object"),
        ({"role": "assistant", "tool_calls": ["f"]}, "tool_calls[0] must be an object, not text"),
        (
            {"role": "assistant", "function_call": {"name": "f", "arguments": "no"}},
            "messages[0].function_call.arguments must be a JSON object",
        ),
        (
            {"role": "assistant", "content": "a", "reasoning_content": ["b"]},
            "messages[0].reasoning_content must be text, not a list",
        ),
        ({"role": "tool", "content": 7}, "messages[0].content must be text, not a number"),
        ({"role": "tool", "content": [{"type": "image_url"}]}, "holds an image; only text is supported"),
        ({"role": "user", "content": {"a": 1}}, "messages[0].content must be text, not an object"),
    ],
)
def test_what_is_no_message_is_refused_with_the_place(message: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowInvalid) as caught:
        check_message(message, "messages[0]", CHAT_ROLES)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "message",
    [
        calling({"name": "f"}),
        calling({"name": "f", "arguments": '{"b": 1, "a": {}}'}),
        calling({"name": "f", "arguments": {"b": 1}}),
        {"role": "assistant", "content": "a", "thinking": "b", "reasoning": None, "tool_calls": None},
        {"role": "tool", "content": {"degrees": 4}},
        {"role": "function", "name": "f", "content": [{"degrees": 4}, 5]},
    ],
)
def test_these_messages_are_fine(message: dict[str, Any]) -> None:
    check_message(message, "messages[0]", CHAT_ROLES)


def test_a_result_is_its_text_or_its_json() -> None:
    assert text_of([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]) == "ab"
    assert text_of({"a": "é", "b": 1.0}) == '{"a": "é", "b": 1.0}'
    assert text_of([{"degrees": 4}, 5]) == '[{"degrees": 4}, 5]'
