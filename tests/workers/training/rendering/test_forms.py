"""Each template gets conversations in the form that it reads; what is not told as lost is rendered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chat_templates import TEMPLATES, tokenizer_of
from tests.properties import examples
from tests.tiny_model import CHAT_TEMPLATE, byte_tokenizer
from workers.training.rendering import marks
from workers.training.rendering.conversation import Conversation, conversation
from workers.training.rendering.template import form_of, template_of

IN_PARTS = {"idefics3", "llava_next", "smolvlm"}
USER = {"role": "user", "content": "Which?"}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "look_up", "description": "d", "parameters": {"type": "object", "properties": {}}},
}
READS_PARTS = (
    "{% for m in messages %}<begin>{{ m['role'] }}:"
    "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<end>{% endfor %}{% if add_generation_prompt %}<begin>assistant:{% endif %}"
)


def calling(arguments: Any, number: int = 1, **more: Any) -> dict[str, Any]:
    calls = [
        {"id": f"call{i:05}", "type": "function", "function": {"name": f"look{i}", "arguments": arguments}}
        for i in range(number)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls, **more}


def rendered(tokenizer: Any, item: dict[str, Any], *, is_open: bool = False) -> str:
    talk = conversation(item)
    return template_of(tokenizer, talk.tools).render(talk, is_open=is_open)


@pytest.mark.parametrize("name", TEMPLATES)
def test_arguments_as_text_are_rendered_as_the_object_that_they_hold(name: str) -> None:
    tokenizer = tokenizer_of(name)
    form = form_of(template_of(tokenizer, None))
    assert form.arguments_are_text == (name == "deepseekv3")
    assert bool(form.in_parts) == (name in IN_PARTS)
    arguments = {"zebra": "a \"b\" 'c' é", "apple": {"deep": [1, 2.5, 1.0]}}
    texts = [
        rendered(tokenizer, {"messages": [USER, calling(given)], "tools": [TOOL]})
        for given in (json.dumps(arguments, ensure_ascii=False), arguments)
    ]
    assert texts[0] == texts[1]
    if "look0" in texts[0]:
        assert '\\"zebra' not in texts[0]
        assert "{{" not in texts[0]
        if not name.startswith(("gemma4", "diffusion")):  # these sort keys themselves
            assert texts[0].index("zebra") < texts[0].index("apple")
        assert "2.5" in texts[0]
        assert "1.0" in texts[0]


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        ('{"b": 1.0, "a": 1e2}', '{"b": 1.0, "a": 100.0}'),
        ({"b": 9007199254740993}, '{"b": 9007199254740993}'),
        ('{"é": "\\u00e9"}', '{"é": "é"}'),
        ("{}", "{}"),
    ],
)
def test_keys_keep_their_order_and_numbers_their_value(arguments: Any, written: str) -> None:
    template = "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }}"
    tokenizer = byte_tokenizer(template + "{% endfor %}{% endfor %}")
    assert rendered(tokenizer, {"messages": [USER, calling(arguments)]}) == written


@pytest.mark.parametrize("arguments", ['{"b": 1e2,  "a":1.0}', {"b": 1e2, "a": 1.0}])
def test_a_template_that_writes_arguments_as_they_are_gets_text(arguments: Any) -> None:
    template = "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.arguments }}"
    tokenizer = byte_tokenizer(template + "{% endfor %}{% endfor %}")
    expected = arguments if isinstance(arguments, str) else '{"b": 100.0, "a": 1.0}'
    assert rendered(tokenizer, {"messages": [USER, calling(arguments)]}) == expected


def test_a_template_that_reads_parts_gets_them_and_one_that_reads_text_gets_parts_joined() -> None:
    plain = {
        "messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi you"}]
    }
    parts = [{"type": "text", "text": "Hi "}, {"type": "input_text", "text": "you"}]
    in_parts = {"messages": [plain["messages"][0], {"role": "user", "content": parts}]}
    expected = "<begin>system:Be brief.<end><begin>user:Hi you<end><begin>assistant:"
    for template in (CHAT_TEMPLATE, READS_PARTS):
        for item in (plain, in_parts):
            assert rendered(byte_tokenizer(template), item, is_open=True) == expected


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "4 "}, {"type": "text", "text": "degrees"}], "4 degrees"),
        ({"degrees": 4.0, "b": None}, '{"degrees": 4.0, "b": null}'),
        ([{"degrees": "é"}], '[{"degrees": "é"}]'),
    ],
)
def test_what_a_tool_returned_is_text_for_the_template(content: Any, text: str) -> None:
    for name in ("qwen3", "glm4moe", "qwen2_5", "nemotron_3_nano"):
        result = {"role": "tool", "tool_call_id": "call00000", "content": content}
        item = {"messages": [USER, calling("{}"), result, USER], "tools": [TOOL]}
        assert f"\n{text}\n" in rendered(tokenizer_of(name), item, is_open=True)


def test_functions_of_old_and_tools_of_the_responses_api_are_tools_like_others() -> None:
    old = {"role": "assistant", "content": None, "function_call": {"name": "look0", "arguments": "{}"}}
    flat = {"type": "function", **TOOL["function"]}  # type: ignore[dict-item]
    tokenizer = tokenizer_of("qwen3")
    of_today = calling("{}")
    del of_today["tool_calls"][0]["id"]
    for tools in ({"functions": [TOOL["function"]]}, {"tools": [flat]}):
        assert rendered(tokenizer, {"messages": [USER, old], **tools}) == rendered(
            tokenizer, {"messages": [USER, of_today], "tools": [TOOL]}
        )


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_tool_without_a_description_is_shown_as_the_template_can(name: str) -> None:
    tokenizer = tokenizer_of(name)
    bare = {"type": "function", "function": {"name": "look_up", "parameters": TOOL["function"]["parameters"]}}
    described = rendered(tokenizer, {"messages": [USER], "tools": [TOOL]}, is_open=True)
    shown = rendered(tokenizer, {"messages": [USER], "tools": [bare]}, is_open=True)
    assert ("look_up" in shown) == ("look_up" in described)


def test_the_template_for_tools_is_used_where_there_are_some() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = {  # type: ignore[assignment]
        "default": "plain {{ messages[0].content }}",
        "tool_use": "{{ tools[0].function.name }} {{ messages[0].content[0].text }}",
    }
    assert rendered(tokenizer, {"messages": [USER]}) == "plain Which?"
    assert rendered(tokenizer, {"messages": [USER], "tools": []}) == "plain Which?"
    assert rendered(tokenizer, {"messages": [USER], "tools": [TOOL]}) == "look_up Which?"


def words(talk: Conversation) -> dict[str, marks.Lost]:
    """Each text of a conversation of `drawn`, with what it is."""
    found = {}
    for place, message in enumerate(talk.messages):
        calls = message.get("tool_calls", ())
        found[message["content"]] = marks.Lost("beside_call" if calls else message["role"], place)
        found[message.get("reasoning_content", "")] = marks.Lost("thought", place)
        for call in calls:
            found[call["function"]["name"]] = marks.Lost("call", place)
            found[json.loads(call["function"]["arguments"]).get("k", "")] = marks.Lost("arguments", place)
    found |= {tool["function"]["name"]: marks.Lost("tools", -1) for tool in talk.tools or ()}
    return {word: piece for word, piece in found.items() if word}


@st.composite
def drawn(draw: st.DrawFn) -> dict[str, Any]:
    """A conversation in which every text is a word of its own."""
    numbers = iter(range(1000, 2000))

    def word(*, maybe: bool = False) -> str:
        return "" if maybe and draw(st.booleans()) else f"Word{next(numbers)}x"

    messages = [{"role": "system", "content": word()}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": word()})
        kind = draw(st.sampled_from(["answer", "calls", "none"]))
        if kind == "calls":
            calls = [
                {
                    "id": f"call{next(numbers):05}",
                    "type": "function",
                    "function": {"name": word(), "arguments": json.dumps({"k": word()})},
                }
                for _ in range(draw(st.integers(1, 2)))
            ]
            thought = word(maybe=True)
            messages.append(
                {
                    "role": "assistant",
                    "content": word(maybe=True),
                    "reasoning_content": thought,
                    "tool_calls": calls,
                }
            )
            messages += [{"role": "tool", "tool_call_id": call["id"], "content": word()} for call in calls]
        if kind != "none":
            thought = word(maybe=True)
            messages.append({"role": "assistant", "content": word(), "reasoning_content": thought})
    tools = [{**TOOL, "function": {**TOOL["function"], "name": word()}}] if draw(st.booleans()) else None  # type: ignore[dict-item]
    return {"messages": messages, "tools": tools}


@pytest.mark.parametrize("name", TEMPLATES)
@examples(8)
@given(item=drawn())
def test_what_is_not_told_as_lost_is_in_the_rendering_and_the_rest_is_not(
    name: str, item: dict[str, Any]
) -> None:
    talk = conversation(item)
    template = template_of(tokenizer_of(name), talk.tools)
    try:
        text = template.render(talk, is_open=not talk.ends_with_answer)
    except Exception:  # the template refuses it, which is told as it is
        return
    missing = {piece for word, piece in words(talk).items() if word not in text}
    assert set(marks.lost(template, talk)) == missing
