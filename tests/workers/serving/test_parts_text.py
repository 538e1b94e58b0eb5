"""What is told of a completion token by token is what its reader makes of all of it, in every family."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from tests.chat_templates import TEMPLATES, tokenizer_of
from workers.serving.completion_text import CompletionText, text_of
from workers.serving.parts.call_grammar import Calling, grammar_of_calls
from workers.serving.parts.calls_told import whole_calls
from workers.serving.parts.model_parts import ModelParts, parts_of
from workers.serving.parts.parts_text import PartsText
from workers.serving.requests import Token
from workers.serving.token_texts import TokenTexts
from workers.training.base.parts import Parts
from workers.training.rendering.conversation import conversation
from workers.training.rendering.template import template_of

FUNCTION = {
    "name": "get_weather",
    "description": "Tells it.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    },
}
TOOLS = [{"type": "function", "function": FUNCTION}]
CALL = {"function": {"name": "get_weather", "arguments": {"city": "Bad Oeynhausen <b>", "days": 3}}}
CALLS = [{"id": "cherry000", "type": "function", **CALL}]
USER = {"role": "user", "content": "hello"}
ANSWERS = ("Yes.", "", "a <b> é", "<tool", "{ no object", "x\n\n", "1 < 2\n</", "日本 </thin> king")
THOUGHTS = ("Hm.", "a\n\nb <", "", "</thin", "é{}")


@cache
def known(name: str) -> tuple[Any, ModelParts | None, TokenTexts]:
    tokenizer = tokenizer_of(name)
    return tokenizer, parts_of(tokenizer, ()), TokenTexts(tokenizer)


FAMILIES = [name for name in TEMPLATES if known(name)[1] is not None]


@cache
def llguidance_of(name: str) -> LLTokenizer:
    tokenizer = tokenizer_of(name)
    return from_tokenizer(tokenizer, n_vocab=len(tokenizer), eos_token=[tokenizer.eos_token_id])


class Told:
    """What is told of a completion, in all and at a time."""

    def __init__(self, name: str, prompt: Sequence[int], tokens: Sequence[int], *, has_tools: bool) -> None:
        tokenizer, parts, texts = known(name)
        assert parts is not None
        ends = frozenset([tokenizer.eos_token_id])
        tag = parts.call_tag if has_tools else ""
        whole = CompletionText(texts, ends, ())
        text = PartsText(parts.reader, whole, prompt, TOOLS if has_tools else [], tag, ())
        self.thoughts, self.answer, self.calls, self.states = "", "", [], list[str]()
        for place, token in enumerate(tokens):
            finish = "length" if place == len(tokens) - 1 else None
            text.push(Token(0, token, 0.0, (), finish))
            self.thoughts += text.take_thoughts()
            self.answer += text_of(text.take())
            self.calls += text.take_calls()
            self.states.append(self.answer)
        self.thought_tokens = text.thought_tokens


def expected(name: str, prompt: Sequence[int], tokens: Sequence[int]) -> Parts:
    parts = known(name)[1]
    assert parts is not None
    return parts.reader.read(prompt, tokens, TOOLS)


def written(name: str, message: dict[str, Any]) -> tuple[list[int], str]:
    """A prompt, and what the template writes behind it for a message; "" where it cannot be told."""
    tokenizer = known(name)[0]
    template = template_of(tokenizer, TOOLS)
    prompt = template.render(conversation({"messages": [USER], "tools": TOOLS}), is_open=True)
    talk = conversation({"messages": [USER, {"role": "assistant", **message}], "tools": TOOLS})
    try:
        whole = template.render(talk, is_open=False)
    except Exception:  # some refuse a message, as they may
        whole = ""
    text = whole.removeprefix(prompt) if whole.startswith(prompt) else ""
    parts = known(name)[1]
    if parts is not None and parts.reader.marks is not None and not parts.reader.marks.header:
        text = text.rpartition(parts.reader.marks.closing)[2]  # without thoughts, which some close empty
    return template.tokens(prompt), text


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_told_is_what_the_reader_finds(name: str) -> None:
    tokenizer, parts, _ = known(name)
    assert parts is not None
    marks = parts.reader.marks
    prompt, call = written(name, {"content": "", "tool_calls": CALLS})
    start, n_calls, n_faults = parts.reader.start(prompt), 0, 0
    for thoughts in (None, *THOUGHTS) if marks is not None else (None,):
        opened = ""
        if marks is not None and thoughts is not None:
            opened = ("" if start == "thoughts" else marks.opening) + thoughts + marks.ending
        for answer in ANSWERS:
            for text in {opened + answer, opened + answer + call, opened + call[: len(call) // 2]} - {""}:
                tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
                found, told = expected(name, prompt, tokens), Told(name, prompt, tokens, has_tools=True)
                n_calls, n_faults = n_calls + bool(found.calls), n_faults + bool(found.fault)
                assert told.thought_tokens == found.thought_tokens, text
                check_told(told, found, text)
    if call and parts.reader.calls_tools:
        assert n_calls > 0
        assert n_faults > 0


def check_told(told: Told, found: Parts, text: str) -> None:
    calls = [call["function"] for call in whole_calls(told.calls)]
    assert calls == [call.chat_form("")["function"] for call in found.calls]
    if found.fault is None:
        assert (told.thoughts, told.answer.rstrip()) == (found.thoughts or "", found.answer.rstrip())
    else:
        assert text.rstrip().endswith(told.answer.rstrip())  # whole, as it was written
    for before, after in zip(told.states, told.states[1:], strict=False):
        assert after.startswith(before)


@pytest.mark.parametrize("name", FAMILIES)
def test_without_tools_calls_are_content_and_nothing_is_lost(name: str) -> None:
    tokenizer, parts, _ = known(name)
    assert parts is not None
    prompt, call = written(name, {"content": "", "tool_calls": CALLS})
    if parts.reader.start(prompt) == "thoughts" or (parts.reader.marks and parts.reader.marks.header):
        return
    chance = random.Random(0)
    for _ in range(20):
        text = "".join(chance.choices([*ANSWERS, call, "\n "], k=3))
        if not text or (parts.reader.marks is not None and parts.reader.marks.opening in text):
            continue
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert Told(name, prompt, tokens, has_tools=False).answer == text


@pytest.mark.parametrize("name", FAMILIES)
def test_a_grammar_takes_calls_as_the_template_writes_them(name: str) -> None:
    tokenizer, parts, _ = known(name)
    assert parts is not None
    _, call = written(name, {"content": "", "tool_calls": CALLS})
    syntax = parts.syntax
    if syntax is None or syntax.between_parts is None:
        return
    strict = {
        **FUNCTION,
        "strict": True,
        "parameters": {**FUNCTION["parameters"], "additionalProperties": False},
    }
    tools = ({"type": "function", "function": strict}, {"type": "function", "function": {"name": "get"}})
    for is_forced, is_single in itertools.product((True, False), repeat=2):
        calling = Calling(tools, is_forced=is_forced, is_single=is_single)
        text = grammar_of_calls(calling, syntax, parts.call_tag, tokenizer, None)
        matcher = LLMatcher(llguidance_of(name), text)
        assert not matcher.is_error(), matcher.get_error()

        def is_taken(completion: str, matcher: LLMatcher = matcher) -> bool:
            ids = tokenizer(completion.rstrip(), add_special_tokens=False)["input_ids"]
            copy = matcher.deep_copy()
            return copy.try_consume_tokens(ids) == len(ids) and copy.is_accepting()

        whole = call[: call.rindex(syntax.tail) + len(syntax.tail)]
        assert is_taken(whole)
        assert not is_taken(whole.replace("3", '"three"'))
        assert not is_taken(whole.replace("get_weather", "set_weather"))
        assert is_taken("Yes.") != is_forced
        assert is_taken("Yes. " + whole.lstrip()) != is_forced
        if syntax.between_calls is not None:
            first, second = whole.lstrip().removesuffix(syntax.tail), whole.lstrip().removeprefix(syntax.lead)
            assert is_taken(first + syntax.between_calls + second) != is_single
