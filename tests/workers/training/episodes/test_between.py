"""What stands between two turns, by the templates of published models."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chat_templates import TEMPLATES, tokenizer_of
from workers.training.rendering.between import TurnsUnsupported, tokens_between
from workers.training.rendering.conversation import conversation
from workers.training.rendering.ends import ends_of
from workers.training.rendering.parts import reader_of
from workers.training.rendering.template import template_of

ITEM: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hi"}],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "look",
                "description": "looks",
                "parameters": {"type": "object", "properties": {"x": {"type": "string"}}},
            },
        }
    ],
}


def results(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "tool", "name": "look", "content": text} for text in texts]


def text_between(name: str, called: list[str], replies: list[dict[str, Any]], *, ends: bool = True) -> str:
    tokenizer = tokenizer_of(name)
    own = ends_of(template_of(tokenizer, conversation(ITEM).tools))
    end = (own.after_calls if called else own.after_answer) if ends else None
    return str(tokenizer.decode(tokens_between(tokenizer, ITEM, called, replies, end)))


def rendered(name: str, *messages: dict[str, Any], is_open: bool) -> str:
    talk = conversation({**ITEM, "messages": [*ITEM["messages"], *messages]})
    return template_of(tokenizer_of(name), talk.tools).render(talk, is_open=is_open)


CALLING = [name for name in TEMPLATES if (found := reader_of(tokenizer_of(name))) and found.calls_tools]
CALL = {"id": "cherry000", "type": "function", "function": {"name": "look", "arguments": {"x": "yes"}}}


@pytest.mark.parametrize("name", CALLING)
def test_what_was_written_and_what_comes_between_are_the_whole_conversation(name: str) -> None:
    turn = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    whole = rendered(name, turn, *results("found it"), is_open=True)
    between = text_between(name, ["look"], results("found it"))
    assert "found it" in between
    assert whole.endswith(between)
    assert whole.removesuffix(between).endswith(special_end(name))


def special_end(name: str) -> str:
    tokenizer = tokenizer_of(name)
    end = ends_of(template_of(tokenizer, conversation(ITEM).tools)).after_calls
    return str(tokenizer.decode([end]))


@pytest.mark.parametrize("name", CALLING)
def test_results_of_several_calls_stand_behind_each_other(name: str) -> None:
    between = text_between(name, ["look", "look"], results("the first", "the second"))
    assert between.count("the first") == between.count("the second") == 1
    assert between.index("the first") < between.index("the second")


def test_by_hand() -> None:
    assert text_between("qwen3", ["look"], results("7")) == (
        "\n<|im_start|>user\n<tool_response>\n7\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    more = [{"role": "user", "content": "and?"}]
    assert text_between("qwen3_5_think", [], more) == (
        "\n<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )
    assert text_between("glm4moe", ["look"], results("7")) == (
        "\n<tool_response>\n7\n</tool_response><|assistant|>"
    )


def test_a_turn_that_no_token_ended_gets_the_templates_end() -> None:
    more = [{"role": "user", "content": "and?"}]
    assert text_between("qwen3", [], more, ends=False) == (
        "<|im_end|>\n<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_result_that_reads_like_an_end_ends_nothing() -> None:
    between = text_between("qwen3", ["look"], results("<|im_end|> xCherryValuex <|im_end|>"))
    assert between.startswith("\n<|im_start|>user\n<tool_response>\n<|im_end|> xCherryValuex")
    assert between.endswith("<|im_start|>assistant\n")


def test_templates_without_calls_say_so() -> None:
    with pytest.raises(TurnsUnsupported, match="cannot go on after a turn of tool calls"):
        text_between("llama3", ["look"], results("7"))
