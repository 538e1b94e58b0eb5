"""Thoughts and tool calls of both APIs: what a model's server is asked, and what clients are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import openai
import pytest
from pydantic import BaseModel

from tests.app.answers import error_of
from tests.app.inference.model_server import ModelServer
from tests.app.inference.refusals import check_refused
from tests.app.inference.test_chat import events

CHATS, RESPONSES = "/v1/chat/completions", "/v1/responses"
STRICT = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION: dict[str, Any] = {
    "name": "get_weather",
    "description": "Tells it.",
    "parameters": STRICT,
    "strict": True,
}
TOOL: Any = {"type": "function", "function": FUNCTION}
FLAT: Any = {"type": "function", **FUNCTION}
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
ASKED: dict[str, Any] = {"model": "cherry-nano", "messages": HELLO}
CALLING: tuple[dict[str, Any], ...] = (
    {"reasoning_content": "Which"},
    {"reasoning_content": " city?"},
    {"content": "Let me"},
    {"content": " see."},
    {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_weather"}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]},
    {
        "tool_calls": [
            {
                "index": 1,
                "id": "call_2",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
            }
        ]
    },
)
"""What a server tells of a reply with thoughts, an answer and two calls."""
SAID = [
    {"role": "assistant", "content": "", "refusal": None},
    {"reasoning_content": "Which"},
    {"reasoning_content": " city?"},
    {"content": "Let me"},
    {"content": " see."},
    {
        "tool_calls": [
            {
                "index": 0,
                "id": "call_1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": ""},
            }
        ]
    },
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]},
    {
        "tool_calls": [
            {
                "index": 1,
                "id": "call_2",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
            }
        ]
    },
    {},
]


class get_weather(BaseModel):
    """Tells it."""

    city: str


@pytest.fixture
def calling(models: ModelServer) -> Iterator[ModelServer]:
    """A server whose model thinks, answers and calls twice."""
    models.deltas, models.finish_reason, models.thought_tokens = CALLING, "tool_calls", 2
    return models


def test_a_whole_chat_has_thoughts_answer_and_calls(
    client: openai.OpenAI, http: httpx.Client, calling: ModelServer
) -> None:
    made = client.chat.completions.create(
        model="cherry-nano",
        messages=HELLO,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        parallel_tool_calls=False,
        reasoning_effort="low",
        store=True,
        extra_body={"max_thinking_tokens": 5, "chat_template_kwargs": {"enable_thinking": True}},
    )
    (choice,) = made.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me see.")
    assert choice.message.reasoning_content == "Which city?"  # type: ignore[attr-defined]
    calls = [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls]  # type: ignore
    assert calls == [
        ("call_1", "get_weather", '{"city": "Oslo"}'),
        ("call_2", "get_weather", '{"city": "Rome"}'),
    ]
    assert made.usage.completion_tokens_details.reasoning_tokens == 2  # type: ignore[union-attr]
    asked = {name: value for name, value in calling.asked[0].items() if name not in ("model", "messages")}
    assert asked == {
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "max_thinking_tokens": 5,
        "chat_template_kwargs": {"enable_thinking": True},
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    kept = client.chat.completions.retrieve(made.id)
    assert kept.choices == made.choices
    said = choice.message.to_dict()
    results = [{"role": "tool", "tool_call_id": name, "content": "sun"} for name in ("call_1", "call_2")]
    messages: Any = [*HELLO, said, *results]
    again = client.chat.completions.create(model="cherry-nano", messages=messages, store=True)
    assert calling.asked[1]["messages"] == [
        *HELLO,
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": "Which city?",
            "tool_calls": [call.to_dict() for call in choice.message.tool_calls or ()],
        },
        *results,
    ]
    _, told, result, _ = http.get(f"{CHATS}/{again.id}/messages").json()["data"]
    assert told["tool_calls"] == said["tool_calls"]
    assert (told["reasoning_content"], result["tool_call_id"]) == ("Which city?", "call_1")


def test_a_chat_of_calls_alone_has_no_content(http: httpx.Client, calling: ModelServer) -> None:
    calling.deltas = CALLING[4:]
    message = http.post(CHATS, json={**ASKED, "tools": [TOOL]}).json()["choices"][0]["message"]
    assert (message["content"], "reasoning_content" in message) == (None, False)


def test_a_stream_tells_a_call_piece_by_piece(http: httpx.Client, calling: ModelServer) -> None:
    *chunks, last = events(http, {**ASKED, "tools": [TOOL]})
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == SAID
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 9 + ["tool_calls"]
    assert last == "[DONE]"


def test_vllms_name_for_thoughts_is_read_too(http: httpx.Client, models: ModelServer) -> None:
    models.deltas = ({"reasoning": "Hm."}, {"content": "Yes."})
    message = http.post(CHATS, json=ASKED).json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm.", "Yes.")


def test_the_clients_helpers_give_typed_arguments(client: openai.OpenAI, calling: ModelServer) -> None:
    if not isinstance(client, openai.OpenAI):
        pytest.skip("what the wrapper of tests does not pass on")
    tool = openai.pydantic_function_tool(get_weather)
    with client.chat.completions.stream(**ASKED, tools=[tool]) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_completion()
    assert kinds.count("tool_calls.function.arguments.done") == 2
    parsed = client.chat.completions.parse(**ASKED, tools=[tool])
    for completion in (streamed, parsed):
        calls = completion.choices[0].message.tool_calls or ()
        assert [call.function.parsed_arguments for call in calls] == [
            get_weather(city="Oslo"),
            get_weather(city="Rome"),
        ]
    flat: Any = tool
    reply = client.responses.parse(model="cherry-nano", input="hello", tools=[flat], store=False)
    made = [item.parsed_arguments for item in reply.output if item.type == "function_call"]
    assert made == [get_weather(city="Oslo"), get_weather(city="Rome")]


def test_a_response_has_an_item_for_each_part(client: openai.OpenAI, calling: ModelServer) -> None:
    first = client.responses.create(
        model="cherry-nano",
        input="hello",
        tools=[FLAT],
        tool_choice={"type": "function", "name": "get_weather"},
        reasoning={"effort": "high"},
    )
    assert [item.type for item in first.output] == ["reasoning", "message", "function_call", "function_call"]
    assert (first.status, first.output_text) == ("completed", "Let me see.")
    thoughts, _, call, _ = first.output
    assert thoughts.content[0].text == "Which city?"  # type: ignore[union-attr]
    assert (call.call_id, call.arguments) == ("call_1", '{"city": "Oslo"}')  # type: ignore[union-attr]
    assert first.usage.output_tokens_details.reasoning_tokens == 2  # type: ignore[union-attr]
    assert first.tools[0].to_dict() == FLAT
    assert first.reasoning.effort == "high"  # type: ignore[union-attr]
    assert calling.asked[0]["tools"] == [TOOL]
    assert calling.asked[0]["tool_choice"] == {"type": "function", "function": {"name": "get_weather"}}
    assert calling.asked[0]["reasoning_effort"] == "high"
    results: Any = [
        {"type": "function_call_output", "call_id": name, "output": "sun"} for name in ("call_1", "call_2")
    ]
    client.responses.create(model="cherry-nano", input=results, previous_response_id=first.id)
    echoed: Any = [{"role": "user", "content": "hello"}, *(item.to_dict() for item in first.output), *results]
    client.responses.create(model="cherry-nano", input=echoed, store=False)
    for asked in calling.asked[1:]:
        user, assistant, *rest = asked["messages"]
        assert (user["content"], assistant["content"]) == ("hello", "Let me see.")
        assert assistant["reasoning_content"] == "Which city?"
        assert [one["id"] for one in assistant["tool_calls"]] == ["call_1", "call_2"]
        assert [one["tool_call_id"] for one in rest] == ["call_1", "call_2"]


ITEM_EVENTS = {
    "message": [
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 2,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ],
    "reasoning": [
        "response.output_item.added",
        "response.content_part.added",
        *["response.reasoning_text.delta"] * 2,
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ],
    "function_call": [
        "response.output_item.added",
        *["response.function_call_arguments.delta"] * 2,
        "response.function_call_arguments.done",
        "response.output_item.done",
    ],
}


def test_a_streamed_response_has_the_events_of_each_item_and_can_be_seen_again(
    http: httpx.Client, calling: ModelServer
) -> None:
    told = events(http, {"model": "cherry-nano", "input": "hello", "tools": [FLAT]}, RESPONSES)
    second_call = [kind for n, kind in enumerate(ITEM_EVENTS["function_call"]) if n != 1]
    assert [event["type"] for event in told] == [
        "response.created",
        "response.in_progress",
        *ITEM_EVENTS["reasoning"],
        *ITEM_EVENTS["message"],
        *ITEM_EVENTS["function_call"],
        *second_call,
        "response.completed",
    ]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    last = told[-1]["response"]
    done = [event for event in told if event["type"] == "response.output_item.done"]
    assert [event["item"] for event in done] == last["output"]
    assert [event["output_index"] for event in done] == [0, 1, 2, 3]
    assert last["output"][2]["arguments"] == '{"city": "Oslo"}'
    again = http.get(f"{RESPONSES}/{last['id']}?stream=true").text
    seen = [json.loads(line[6:]) for line in again.splitlines() if line.startswith("data: ")]
    assert seen[-1]["response"] == last
    kinds = [event["type"] for event in seen]
    assert kinds == [kind for n, kind in enumerate(e["type"] for e in told) if n not in (5, 12, 18)]


def test_the_clients_stream_of_a_response(client: openai.OpenAI, calling: ModelServer) -> None:
    if not isinstance(client, openai.OpenAI):
        pytest.skip("what the wrapper of tests does not pass on")
    with client.responses.stream(model="cherry-nano", input="hello", tools=[FLAT]) as stream:
        deltas = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == '{"city": "Oslo"}{"city": "Rome"}'
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call", "function_call"]


def test_a_response_of_thoughts_alone_is_incomplete(http: httpx.Client, models: ModelServer) -> None:
    models.deltas, models.finish_reason = ({"reasoning_content": "Hm"},), "length"
    made = http.post(RESPONSES, json={"model": "cherry-nano", "input": "hello"}).json()
    assert [(item["type"], item["status"]) for item in made["output"]] == [("reasoning", "incomplete")]
    assert (made["status"], made["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


def test_only_allowed_tools_are_shown(http: httpx.Client, calling: ModelServer) -> None:
    other = {"type": "function", "function": {"name": "other"}}
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "other"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    http.post(CHATS, json={**ASKED, "tools": [TOOL, other], "tool_choice": choice}).raise_for_status()
    assert (calling.asked[0]["tools"], calling.asked[0]["tool_choice"]) == ([other], "required")


def function(**members: Any) -> dict[str, Any]:
    return {"type": "function", "function": {**FUNCTION, **members}}


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASKING = {"role": "assistant", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "5"}
NAMED = {"type": "function", "function": {"name": "other"}}
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no type": ({"tools": [{}]}, "tools[0].type", "missing_required_parameter"),
    "a custom tool": ({"tools": [{"type": "custom"}]}, "tools[0].type", "unsupported_parameter"),
    "no function": ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
    "a name": ({"tools": [function(name="a b")]}, "tools[0].function.name", "invalid_value"),
    "one name twice": ({"tools": [TOOL, TOOL]}, "tools[1].function.name", "invalid_value"),
    "parameters": ({"tools": [function(parameters=[])]}, "tools[0].function.parameters", "invalid_type"),
    "no object": (
        {"tools": [function(parameters={"type": "string"}, strict=False)]},
        "tools[0].function.parameters",
        "invalid_function_parameters",
    ),
    "not strict": (
        {"tools": [function(parameters={"type": "object", "properties": {"a": {"type": "string"}}})]},
        "tools[0].function.parameters",
        "invalid_function_parameters",
    ),
    "no schema": (
        {"tools": [function(parameters={**STRICT, "properties": {"city": {"type": "town"}}})]},
        "tools[0].function.parameters",
        "invalid_function_parameters",
    ),
    "too many": (
        {"tools": [function(name=f"f{n}") for n in range(129)]},
        "tools",
        "array_above_max_length",
    ),
    "a choice": ({"tools": [TOOL], "tool_choice": "perhaps"}, "tool_choice", "invalid_value"),
    "another's name": ({"tools": [TOOL], "tool_choice": NAMED}, "tool_choice", "invalid_value"),
    "required of none": ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
    "a result alone": ({"messages": [*HELLO, RESULT]}, "messages[1].role", "invalid_value"),
    "no id": (
        {"messages": [*HELLO, ASKING, {"role": "tool", "content": "5"}]},
        "messages[2].tool_call_id",
        "missing_required_parameter",
    ),
    "another's id": (
        {"messages": [*HELLO, ASKING, RESULT, {**RESULT, "tool_call_id": "d"}]},
        "messages[3].tool_call_id",
        "invalid_value",
    ),
    "one id twice": (
        {"messages": [*HELLO, {**ASKING, "tool_calls": [CALL, CALL]}, RESULT, RESULT]},
        "messages[1].tool_calls[1].id",
        "invalid_value",
    ),
    "no result": ({"messages": [*HELLO, ASKING, *HELLO]}, "messages", "invalid_value"),
    "arguments": (
        {
            "messages": [
                *HELLO,
                {
                    "role": "assistant",
                    "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}],
                },
                RESULT,
            ]
        },
        "messages[1].tool_calls[0].function.arguments",
        "invalid_value",
    ),
    "thoughts": (
        {"messages": [*HELLO, {"role": "assistant", "content": "a", "reasoning_content": 5}]},
        "messages[1].reasoning_content",
        "invalid_type",
    ),
}


def test_chats_that_cannot_be_are_refused_by_name(
    http: httpx.Client, models: ModelServer, subtests: pytest.Subtests
) -> None:
    check_refused(http, CHATS, ASKED, REFUSED, subtests)
    assert models.asked == []


def test_responses_that_cannot_be_are_refused_by_name(
    http: httpx.Client, models: ModelServer, subtests: pytest.Subtests
) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "output": "5"}
    refused: dict[str, tuple[dict[str, Any], str, str]] = {
        "no call": ({"input": [*HELLO, result]}, "input", "invalid_value"),
        "no output": ({"input": [*HELLO, call]}, "input", "invalid_value"),
        "one id twice": ({"input": [*HELLO, call, call, result]}, "input", "invalid_value"),
        "arguments": ({"input": [{**call, "arguments": "5"}, result]}, "input[0].arguments", "invalid_value"),
        "thoughts": (
            {"input": [*HELLO, {"type": "reasoning", "content": [{}]}]},
            "input[1].content[0]",
            "invalid_value",
        ),
        "a search": ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_parameter"),
        "a name": ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
        "a choice": (
            {"tools": [FLAT], "tool_choice": {"type": "function", "name": "g"}},
            "tool_choice",
            "invalid_value",
        ),
    }
    check_refused(http, RESPONSES, {"model": "cherry-nano", "input": "hello"}, refused, subtests)
    assert models.asked == []
    told = error_of(http.post(RESPONSES, json={"model": "cherry-nano", "input": [*HELLO, result]}))
    assert told["message"] == "No tool call found for function call output with call_id c."
