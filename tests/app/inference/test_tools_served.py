"""Thoughts and calls the whole way: the official client, the service, a real sampler and a scripted model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel
from sqlalchemy.orm import Session

from tests.app.inference.test_tools import HELLO, TOOL
from tests.factories import Tenant, make_model
from tests.scripted_model import make_scripted_model

pytestmark = pytest.mark.usefixtures("sampler")
SCRIPT = (
    "<think>", "\nWhich ", "city?", "\n\n ", "</think>", "\n\nLet me see.", "\n\n\n",
    "<tool_call>", '\n{"name": ', '"get_weather", ', '"arguments": ', '{"city": "Os', 'lo"}}\n',
    "</tool_call>",
)  # fmt: skip


class get_weather(BaseModel):
    """Tells it. The script says Oslo, which no schema of this has."""

    city: Literal["Rome", "Bern"]


@pytest.fixture
def thinker(db: Session, tenant: Tenant, tmp_path: Path) -> str:
    """A model that thinks, answers and calls."""
    make_model(db, "thinker", make_scripted_model(tmp_path / "thinker", SCRIPT))
    db.commit()
    return "thinker"


@pytest.fixture
def strict(server_url: str, tenant: Tenant) -> Iterator[openai.OpenAI]:
    """The official client that validates every response: one is enough where the clients do the same."""
    options: Any = {"base_url": f"{server_url}/v1", "api_key": tenant.key, "max_retries": 0}
    with openai.OpenAI(**options, _strict_response_validation=True) as made:
        yield made


def test_a_chat_calls_a_tool_and_goes_on(client: openai.OpenAI, thinker: str) -> None:
    asked: dict[str, Any] = {"model": thinker, "tools": [TOOL | {"function": {"name": "get_weather"}}]}
    first = client.chat.completions.create(messages=HELLO, temperature=0, **asked)
    message = first.choices[0].message
    assert message.reasoning_content == "Which city?"  # type: ignore[attr-defined]
    assert (message.content, first.choices[0].finish_reason) == ("Let me see.", "tool_calls")
    (call,) = message.tool_calls or ()
    assert (call.function.name, call.function.arguments) == ("get_weather", '{"city": "Oslo"}')  # type: ignore[union-attr]
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "sun"}
    again = client.chat.completions.create(
        messages=[*HELLO, message.to_dict(), result],  # type: ignore[list-item]
        temperature=0,
        **asked,
    )
    assert again.usage.prompt_tokens > first.usage.prompt_tokens + len("Which city?Oslosun")  # type: ignore[union-attr]
    assert first.usage.completion_tokens_details.reasoning_tokens == 5  # type: ignore[union-attr]


def test_a_response_calls_a_tool_and_goes_on(client: openai.OpenAI, thinker: str) -> None:
    tools: Any = [{"type": "function", "name": "get_weather", "parameters": None, "strict": False}]
    first = client.responses.create(model=thinker, input="hello", tools=tools, temperature=0)
    assert [item.type for item in first.output] == ["reasoning", "message", "function_call"]
    call: Any = first.output[-1]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
    again = client.responses.create(
        model=thinker, input=[result], previous_response_id=first.id, tools=tools, temperature=0
    )
    assert again.output_text == "Let me see."
    assert first.usage.output_tokens_details.reasoning_tokens == 5  # type: ignore[union-attr]
    counted = client.responses.input_tokens.count(model=thinker, input="hello", tools=tools)
    assert counted.input_tokens == first.usage.input_tokens  # type: ignore[union-attr]
    items = [item.type for item in client.responses.input_items.list(again.id, order="asc")]
    assert items == ["message", "reasoning", "message", "function_call", "function_call_output"]


def test_helpers_of_the_client_get_arguments_of_their_type(strict: openai.OpenAI, thinker: str) -> None:
    asked: Any = {"model": thinker, "tools": [openai.pydantic_function_tool(get_weather)]}
    parsed = strict.chat.completions.parse(messages=HELLO, temperature=0, **asked)
    with strict.chat.completions.stream(messages=HELLO, temperature=0, **asked) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_completion()
    assert kinds.count("tool_calls.function.arguments.done") == kinds.count("content.done") == 1
    for completion in (parsed, streamed):
        (call,) = completion.choices[0].message.tool_calls or ()
        assert isinstance(call.function.parsed_arguments, get_weather)
    with strict.responses.stream(input="hello", temperature=0, **asked) as events:
        kinds = [event.type for event in events]
        response = events.get_final_response()
    assert kinds.count("response.reasoning_text.done") == 1
    assert kinds.count("response.function_call_arguments.delta") > 2
    assert isinstance(response.output[-1].parsed_arguments, get_weather)  # type: ignore[union-attr]


def test_a_tool_that_must_be_called_is(strict: openai.OpenAI, thinker: str) -> None:
    other: Any = {
        "type": "function",
        "function": {"name": "other", "parameters": TOOL["function"]["parameters"]},
    }
    for choice in ("required", {"type": "function", "function": {"name": "other"}}):
        made = strict.chat.completions.create(
            model=thinker,
            messages=HELLO,
            tools=[other],
            tool_choice=choice,
            seed=1,
            max_completion_tokens=300,  # type: ignore[arg-type]
        )
        assert made.choices[0].message.tool_calls[0].function.name == "other"  # type: ignore[index,union-attr]


def test_a_model_that_is_shown_no_tools_is_refused_by_name(strict: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as chat:
        strict.chat.completions.create(model="cherry-nano", messages=HELLO, tools=[TOOL])
    with pytest.raises(openai.BadRequestError) as response:
        strict.responses.create(model="cherry-nano", input="hello", reasoning={"effort": "high"})
    assert (chat.value.param, response.value.param) == ("tools", "reasoning.effort")
