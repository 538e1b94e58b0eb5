"""Thoughts, answers and tool calls as the sampler tells them, of a model that writes what a script says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from jsonschema import Draft202012Validator
from sqlalchemy.orm import Session
from starlette.applications import Starlette

from tests.factories import make_model, make_tenant
from tests.scripted_model import make_scripted_model
from tests.workers.serving.support import chat, client_of

THOUGHTS = ("<think>", "\nWhich ", "city? <", "/think", "ing>", "\n\n ", "</think>")
CALL = (
    "<tool_call>",
    '\n{"name": ',
    '"get_weather", ',
    '"arguments": ',
    '{"city": "Os',
    'lo"}}',
    "\n</",
    "tool_call>",
)
BOTH_CALLS = (
    "<tool_call>",
    '\n{"name": ',
    '"get_weather", ',
    '"arguments": ',
    '{"city": "Os',
    'lo"}}\n',
    "</tool_call>",
)
WEATHER = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"enum": [1, 2]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


def tool(name: str = "get_weather", **members: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": WEATHER, **members}}


Ask = Callable[..., Any]


@pytest.fixture
def scripted(
    sampler: tuple[str, Starlette], db: Session, tmp_path: Path
) -> Iterator[Callable[[Sequence[str]], openai.OpenAI]]:
    """Makes a model that writes a script, and a client of a project that has it as "tiny"."""
    project = make_tenant(db, "scripted").project_id
    clients: list[openai.OpenAI] = []

    def make(script: Sequence[str]) -> openai.OpenAI:
        make_model(db, "tiny", make_scripted_model(tmp_path / "model", script))
        db.commit()
        clients.append(client_of(sampler[0], project))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


class Streamed:
    """Is what a stream tells of one choice."""

    def __init__(self, chunks: Any) -> None:
        self.thoughts: list[str] = []
        self.contents: list[str] = []
        self.calls: list[Any] = []
        self.tokens: list[Any] = []
        self.finish: str | None = None
        self.usage: Any = None
        for chunk in chunks:
            self.usage = chunk.usage or self.usage
            for choice in chunk.choices:
                self._take(choice)

    def _take(self, choice: Any) -> None:
        delta = choice.delta
        self.thoughts += [text] if (text := getattr(delta, "reasoning_content", None)) else []
        self.contents += [delta.content] if delta.content else []
        self.calls += delta.tool_calls or ()
        self.tokens += choice.logprobs.content if choice.logprobs else ()
        self.finish = choice.finish_reason or self.finish


def both(client: openai.OpenAI, **asked: Any) -> tuple[Any, Streamed]:
    """What is told of a request, whole and as a stream, which say the same."""
    asked = {"temperature": 0, "logprobs": True, "max_completion_tokens": 200, **asked}
    whole = chat(client, **asked)
    streamed = Streamed(chat(client, **asked, stream=True, stream_options={"include_usage": True}))
    message = whole.choices[0].message
    assert "".join(streamed.contents) == (message.content or "")
    assert "".join(streamed.thoughts) == (getattr(message, "reasoning_content", None) or "")
    assert streamed.finish == whole.choices[0].finish_reason
    for usage in (streamed.usage, whole.usage):
        assert usage.completion_tokens_details == whole.usage.completion_tokens_details
        assert usage.completion_tokens == whole.usage.completion_tokens
    for tokens in (streamed.tokens, whole.choices[0].logprobs.content):
        assert b"".join(bytes(token.bytes) for token in tokens).decode() == (message.content or "")
    assert [call.function.arguments for call in message.tool_calls or ()] == [
        "".join(piece.function.arguments for piece in streamed.calls if piece.index == number)
        for number in range(len(message.tool_calls or ()))
    ]
    return whole.choices[0], streamed


def test_thoughts_and_answer_are_told_apart(scripted: Callable[[Sequence[str]], openai.OpenAI]) -> None:
    client = scripted((*THOUGHTS, "\n\nLet", " me <tool", " see."))
    choice, streamed = both(client)
    assert choice.message.reasoning_content == "Which city? </thinking>"
    assert choice.message.content == "Let me <tool see."
    assert choice.finish_reason == "stop"
    assert streamed.usage.completion_tokens_details.reasoning_tokens == len(THOUGHTS)
    assert streamed.usage.completion_tokens == len(THOUGHTS) + 4
    assert not any("</" in text and "</thinking>" not in text for text in streamed.thoughts)


def test_an_answer_without_thoughts_stays_as_it_is(
    scripted: Callable[[Sequence[str]], openai.OpenAI],
) -> None:
    choice, _ = both(scripted(("\n \n", "<thin", "king is", " hard \n")))
    assert choice.message.content == "\n \n<thinking is hard \n"


def test_a_completion_that_is_cut_in_its_thoughts_has_no_answer(
    scripted: Callable[[Sequence[str]], openai.OpenAI],
) -> None:
    choice, streamed = both(scripted((*THOUGHTS, "yes")), max_completion_tokens=4)
    assert (choice.message.content, choice.finish_reason) == ("", "length")
    assert choice.message.reasoning_content == "Which city? </think"
    assert streamed.usage.completion_tokens_details.reasoning_tokens == 4


def test_stop_strings_end_an_answer_and_no_thoughts(
    scripted: Callable[[Sequence[str]], openai.OpenAI],
) -> None:
    choice, streamed = both(scripted((*THOUGHTS, "Which one", " city it", " is")), stop=["city", "Os"])
    assert (choice.message.reasoning_content, choice.message.content) == (
        "Which city? </thinking>",
        "Which one ",
    )
    assert choice.finish_reason == "stop"
    assert streamed.usage.completion_tokens == len(THOUGHTS) + 2


def test_a_call_is_told_with_its_name_first(scripted: Callable[[Sequence[str]], openai.OpenAI]) -> None:
    client = scripted((*THOUGHTS, "\n\nLet me see.", "\n\n", *BOTH_CALLS))
    choice, streamed = both(client, tools=[tool()], stop=["Os"])
    assert (choice.message.content, choice.finish_reason) == ("Let me see.", "tool_calls")
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Oslo"})
    assert call.id.startswith("call_")
    first, *rest = streamed.calls
    assert (first.function.name, first.function.arguments, first.type) == ("get_weather", "", "function")
    assert rest
    assert all(piece.id is None and piece.function.name is None for piece in rest)
    silent = chat(client, tools=[tool()], tool_choice="none", temperature=0, max_completion_tokens=200)
    assert silent.choices[0].message.tool_calls is None
    assert "<tool_call>" in silent.choices[0].message.content


@pytest.mark.parametrize("broken", ['{"city": "Os', '"Oslo"}}'], ids=["cut", "no object"])
def test_a_broken_call_is_content_and_nothing_is_lost(
    scripted: Callable[[Sequence[str]], openai.OpenAI], broken: str
) -> None:
    script = (*THOUGHTS, "\n\nLet me see.", "\n\n\n", *BOTH_CALLS[:4], broken, "</tool_call>")
    choice, _ = both(scripted(script), tools=[tool()])
    assert choice.message.tool_calls is None
    assert choice.message.content == "".join(script[len(THOUGHTS) :]).lstrip()
    assert choice.finish_reason == "stop"


def test_strict_arguments_are_of_their_schema(scripted: Callable[[Sequence[str]], openai.OpenAI]) -> None:
    client = scripted((*THOUGHTS, "\n\nLet me see.", "\n\n", *BOTH_CALLS))  # its arguments lack the days
    tools = [tool(strict=True), tool("other", strict=True)]
    for seed in range(3):
        choice, streamed = both(client, tools=tools, seed=seed, temperature=1)
        assert choice.message.content == "Let me see."
        assert choice.message.tool_calls, choice
        assert len(streamed.calls) > 2 * len(choice.message.tool_calls)  # told as they are written
        for call in choice.message.tool_calls:
            Draft202012Validator(WEATHER).validate(json.loads(call.function.arguments))


def test_a_held_call_that_is_cut_is_told_as_far_as_it_came(
    scripted: Callable[[Sequence[str]], openai.OpenAI],
) -> None:
    client = scripted((*THOUGHTS, "\n\nI will not."))
    strict: Any = {"tools": [tool(strict=True)], "tool_choice": "required", "parallel_tool_calls": False}
    whole, streamed = both(client, **strict)
    (call,) = whole.message.tool_calls
    tokens = streamed.usage.completion_tokens
    cut, _ = both(client, **strict, max_completion_tokens=tokens - 20)
    assert cut.finish_reason == "length"
    assert call.function.arguments.startswith(cut.message.tool_calls[0].function.arguments)
    early, _ = both(client, **strict, max_completion_tokens=len(THOUGHTS) + 10)
    assert early.message.tool_calls is None
    assert early.message.content.startswith("<tool_call>\n")


@pytest.mark.parametrize("choice", ["required", "named"])
def test_a_call_that_is_required_is_made(
    scripted: Callable[[Sequence[str]], openai.OpenAI], choice: str
) -> None:
    client = scripted((*THOUGHTS, "\n\nI will not."))
    asked = "required" if choice == "required" else {"type": "function", "function": {"name": "other"}}
    tools = [tool(strict=True), tool("other", strict=True)]
    for seed in range(3):
        found, _ = both(
            client, tools=tools, tool_choice=asked, parallel_tool_calls=False, seed=seed, temperature=1
        )
        assert found.message.reasoning_content == "Which city? </thinking>"
        (call,) = found.message.tool_calls
        assert found.finish_reason == "tool_calls"
        assert call.function.name in (["other"] if choice == "named" else ["get_weather", "other"])
        Draft202012Validator(WEATHER).validate(json.loads(call.function.arguments))


def test_a_response_format_waits_for_the_thoughts(
    scripted: Callable[[Sequence[str]], openai.OpenAI],
) -> None:
    client = scripted((*THOUGHTS, "\n\nI will not."))
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": WEATHER}}
    found, _ = both(client, response_format=form, temperature=1)
    assert found.message.reasoning_content == "Which city? </thinking>"
    Draft202012Validator(WEATHER).validate(json.loads(found.message.content))


def test_a_budget_closes_the_thoughts(scripted: Callable[[Sequence[str]], openai.OpenAI]) -> None:
    client = scripted(("<think>", "\nWhich ", "city? <", "</think>", "\n\n", "I see."))
    choice, streamed = both(client, extra_body={"max_thinking_tokens": 1}, stop=["see"])
    assert choice.message.reasoning_content == "Which"
    assert choice.message.content == "I "
    assert streamed.usage.completion_tokens_details.reasoning_tokens < 20


def test_an_effort_is_a_switch_of_the_template_or_a_budget(
    scripted: Callable[[Sequence[str]], openai.OpenAI],
) -> None:
    client = scripted(("<think>", "\nWhich ", "city? <", "</think>", "\n\n", "I see."))
    plain = chat(client, max_completion_tokens=100)
    without = [
        chat(client, reasoning_effort="none"),
        chat(client, extra_body={"chat_template_kwargs": {"enable_thinking": False}}),
        chat(client, extra_body={"max_thinking_tokens": 0}),
    ]
    more = without[0].usage.prompt_tokens - plain.usage.prompt_tokens
    assert more > 0  # the prompt closes the thoughts
    assert {one.usage.prompt_tokens for one in without} == {plain.usage.prompt_tokens + more}
    low = chat(client, reasoning_effort="low", max_completion_tokens=8, temperature=0)
    assert low.choices[0].message.reasoning_content == "Which"
    high = chat(client, reasoning_effort="high", max_completion_tokens=100, temperature=0)
    assert high.choices[0].message.reasoning_content == "Which city? <"


REFUSED: dict[str, dict[str, Any]] = {
    "tools": {"tools": [tool()]},
    "reasoning_effort": {"reasoning_effort": "high"},
    "chat_template_kwargs": {"extra_body": {"chat_template_kwargs": {"mood": 1}}},
}


@pytest.mark.parametrize("param", REFUSED)
def test_what_a_model_cannot_do_is_refused_by_name(client: openai.OpenAI, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, **REFUSED[param])
    assert refused.value.param == param
    assert chat(client, reasoning_effort="none").choices[0].finish_reason


def test_what_the_service_gives_a_template_is_not_the_requests_to_set(
    scripted: Callable[[Sequence[str]], openai.OpenAI],
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat(scripted(THOUGHTS), extra_body={"chat_template_kwargs": {"messages": []}})
    assert refused.value.param == "chat_template_kwargs"
