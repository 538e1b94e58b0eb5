"""Completions are taken apart as the templates of published models write them, and none loses text."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
from transformers import PreTrainedTokenizerFast

from tests.chat_templates import TEMPLATES, tokenizer_of
from tests.tiny_model import byte_tokenizer
from workers.training.base.parts import Parts, ToolCall
from workers.training.rendering.conversation import conversation
from workers.training.rendering.parts import reader_of
from workers.training.rendering.template import template_of

ADD: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {
            "type": "object",
            "properties": {"x": {"type": "integer"}, "y": {"type": "string"}, "z": {"enum": [3]}},
        },
    },
}


def taken_apart(name: str, text: str, tools: list[dict[str, Any]] | None = None, **variables: Any) -> Parts:
    """Takes apart what a model of this template writes to a question."""
    tokenizer = tokenizer_of(name)
    reader = reader_of(tokenizer)
    assert reader is not None
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "q"}], add_generation_prompt=True, tokenize=False, **variables
    )
    return reader.read(ids_of(tokenizer, str(prompt)), ids_of(tokenizer, text), tools)


def ids_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def call(**arguments: Any) -> ToolCall:
    return ToolCall("add", arguments)


class Case(NamedTuple):
    """What a model writes, and its thoughts, answer and calls."""

    template: str
    text: str
    thoughts: str | None
    answer: str
    calls: tuple[ToolCall, ...] = ()


THINKING = "<think>\nhm\n</think>\n\n"
IN_CHANNEL = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
XML = "<tool_call>\n<function=add>\n<parameter=x>\n3\n</parameter>\n</function>\n</tool_call>"
JSON = '<tool_call>\n{"name": "add", "arguments": {"x": 3}}\n</tool_call>'
READ = {
    "qwen": Case("qwen3", f"{THINKING}13<|im_end|>", "hm", "13"),
    "qwen, no thoughts": Case("qwen3", " x = 3\n<|im_end|>", None, " x = 3\n"),
    "qwen, empty thoughts": Case("qwen3", "<think>\n\n</think>\n\n13<|im_end|>", None, "13"),
    "qwen, closed alone": Case("qwen3", "hm\n</think>\n\n13<|im_end|>", "hm", "13"),
    "qwen, calls": Case("qwen3", f"{THINKING}So:\n{JSON}\n{JSON}<|im_end|>", "hm", "So:", (call(x=3),) * 2),
    "opened by the prompt": Case("qwen3_5_think", "hm\n</think>\n\n13<|im_end|>", "hm", "13"),
    "closed by the prompt": Case("qwen3_5_nothink", "13<|im_end|>", None, "13"),
    "typed by the tools": Case("qwen3_5_think", f"hm</think>{XML}<|im_end|>", "hm", "", (call(x=3),)),
    "typed by an enum": Case(
        "qwen3_5_think",
        f"hm</think>{XML.replace('parameter=x', 'parameter=z')}<|im_end|>",
        "hm",
        "",
        (call(z=3),),
    ),
    "nemotron": Case("nemotron_3_nano", f"hm\n</think>\n{XML}\n<|im_end|>", "hm", "", (call(x=3),)),
    "thoughts that begin as a call": Case(
        "nemotron_3_nano", f"{XML} is it</think>13<|im_end|>", f"{XML} is it", "13"
    ),
    "r1": Case("deepseek_r1_distill", "hm\n</think>\n\n13<｜end▁of▁sentence｜>", "hm", "13"),
    "v3, which trl does not know": Case("deepseekv3", "hm\n</think>\n\n13<｜end▁of▁sentence｜>", "hm", "13"),
    "gemma": Case("gemma4", "<|channel>thought\nhm\n<channel|>13<turn|>", "hm", "13"),
    "gemma's like": Case(
        "diffusion_gemma",
        "<|channel>thought\nhm<channel|><|tool_call>call:add{x:3}<tool_call|>",
        "hm",
        "",
        (call(x=3),),
    ),
    "glm": Case("glm4moe", "\n<think>hm</think>\n13<|user|>", "hm", "13"),
    "glm, a stop token behind a call": Case(
        "glm4moe",
        "\n<think>hm</think>\n<tool_call>add\n<arg_key>x</arg_key>\n<arg_value>3</arg_value>\n</tool_call><|user|>",
        "hm",
        "",
        (call(x=3),),
    ),
    "gpt-oss": Case("gptoss", f"{IN_CHANNEL}<|channel|>final<|message|>13<|return|>", "hm", "13"),
    "gpt-oss, no thoughts": Case("gptoss", "<|channel|>final<|message|>13<|return|>", None, "13"),
    "gpt-oss, a call": Case(
        "gptoss",
        f'{IN_CHANNEL} to=functions.add<|channel|>commentary json<|message|>{{"x": 3}}<|call|>',
        "hm",
        "",
        (call(x=3),),
    ),
    **{
        f"gpt-oss, {name}": Case(
            "gptoss", f'{IN_CHANNEL}{header}<|message|>{{"x": 3}}<|call|>', "hm", "", (call(x=3),)
        )
        for name, header in {
            "constrained": " to=functions.add<|channel|>commentary <|constrain|>json",
            "to in the channel": "<|channel|>commentary to=functions.add <|constrain|>json",
            "without a type": "<|channel|>commentary to=functions.add",
            "in the thoughts' channel": "<|channel|>analysis to=functions.add json",
        }.items()
    },
    "gpt-oss, says what it will do": Case(
        "gptoss",
        f"{IN_CHANNEL}<|channel|>commentary<|message|>So:<|end|><|start|>assistant"
        '<|channel|>commentary to=functions.add json<|message|>{"x": 3}<|call|>',
        "hm",
        "So:",
        (call(x=3),),
    ),
    "gpt-oss, cut between the messages": Case("gptoss", IN_CHANNEL, "hm", ""),
    "muse": Case(
        "muse_glimmer",
        " to=self<|message|>hm<|eom|><|start|>assistant to=user<|message|>13<|eot|>",
        "hm",
        "13",
    ),
    "llama": Case("llama3_1", '{"name": "add", "parameters": {"x": 3}}<|eot_id|>', None, "", (call(x=3),)),
    "lfm": Case(
        "lfm2_2_5",
        "<|tool_call_start|>[add(x=3), add(x='a')]<|tool_call_end|><|im_end|>",
        None,
        "",
        (call(x=3), call(x="a")),
    ),
    "prose before a call": Case(
        "lfm2_2_5",
        "a, b(1) <|tool_call_start|>[add(x=3)]<|tool_call_end|>",
        None,
        "a, b(1)",
        (call(x=3),),
    ),
    "lfm, a text that looks like arguments": Case(
        "lfm2_2_5",
        'So:<|tool_call_start|>[add(y="it\'s (a, b=1)\\n", x=true)]<|tool_call_end|><|im_end|>',
        None,
        "So:",
        (call(y="it's (a, b=1)\n", x=True),),
    ),
    "prose that looks like a call": Case("lfm2_2_5", "for i, range(10)<|im_end|>", None, "for i, range(10)"),
}


@pytest.mark.parametrize("case", READ.values(), ids=READ)
def test_a_completion_has_the_parts_that_its_template_wrote(case: Case) -> None:
    found = taken_apart(case.template, case.text, [ADD])
    assert (found.fault, found.is_cut_in_thoughts) == (None, False)
    assert (found.thoughts, found.answer, found.calls) == (case.thoughts, case.answer, case.calls)


LOST = {
    "thoughts twice": ("qwen3", "<think>a</think>x<think>b</think>y<|im_end|>", "thoughts behind"),
    "text on both sides of a call": ("qwen3", f"before{JSON}after<|im_end|>", "before a tool call"),
    "a broken call beside a good one": (
        "qwen3",
        f'{JSON}\n<tool_call>\n{{"nam\n</tool_call>',
        "cannot be read",
    ),
    "a text cut in a call": ("lfm2_v2", "<|tool_call_start|>[add(a='Bad", "ends in the middle"),
    "a call cut off": ("qwen3", '<tool_call>\n{"name": "add", "argu', "cannot be read"),
    "a call without a name": ("qwen3", '<tool_call>\n{"arguments": {}}\n</tool_call>', "no name"),
    "a call with a list": (
        "qwen3",
        '<tool_call>\n{"name": "add", "arguments": [3]}\n</tool_call>',
        "no JSON object",
    ),
    "a call with more": ("qwen3", '<tool_call>\n{"name": "add", "x": 3}\n</tool_call>', "which no call has"),
    "a number that is none": (
        "qwen3",
        '<tool_call>\n{"name": "add", "arguments": {"x": NaN}}\n</tool_call>',
        "no JSON",
    ),
    "the next turn": ("qwen3", "13<|im_start|>user\nq", "'<|im_start|>'"),
    "an apostrophe": ("lfm2_2_5", "<|tool_call_start|>[add(x='it's')]<|tool_call_end|>", "cannot be read"),
    "calls cut off": ("lfm2_2_5", "<|tool_call_start|>[add(x=3)", "ends in the middle"),
    "a call without keywords": ("lfm2_2_5", "<|tool_call_start|>[add(3)]<|tool_call_end|>", "by keywords"),
    "a call with a set": ("lfm2_2_5", "<|tool_call_start|>[add(x={3})]<|tool_call_end|>", "cannot be read"),
    "no channel": ("gptoss", "13<|return|>", "none of its parts"),
    "no recipient": ("muse_glimmer", "13<|eot|>", "none of its parts"),
    "arguments that end no recursion": (
        "qwen3",
        '<tool_call>\n{"name": "add", "arguments": {"x": ' + "[" * 5000 + "\n</tool_call>",
        "nested too deeply",
    ),
    "arguments that are too deep for a tool": (
        "qwen3",
        '<tool_call>\n{"name": "add", "arguments": {"x": ' + "[" * 70 + "]" * 70 + "}}\n</tool_call>",
        "nested more than 64 levels deep",
    ),
    "half a character in an argument": (
        "qwen3",
        '<tool_call>\n{"name": "add", "arguments": {"x": "\\ud800"}}\n</tool_call>',
        "half of a surrogate pair",
    ),
    "half a character in a name": (
        "qwen3",
        '<tool_call>\n{"name": "a\\ud800", "arguments": {}}\n</tool_call>',
        "half of a surrogate pair",
    ),
    "a number that no database holds": (
        "qwen3",
        '<tool_call>\n{"name": "add", "arguments": {"x": 99999999999999999999}}\n</tool_call>',
        "beyond 64 bits",
    ),
    "a call that nobody reads": (
        "deepseekv3",
        "hm</think>\n\n<｜tool▁calls▁begin｜>x",
        "no text of an answer",
    ),
}


@pytest.mark.parametrize(("template", "text", "fault"), LOST.values(), ids=LOST)
def test_a_completion_that_would_lose_text_is_unparsed(template: str, text: str, fault: str) -> None:
    found = taken_apart(template, text, [ADD])
    assert found.fault is not None
    assert fault in found.fault
    assert (found.thoughts, found.answer, found.calls) == (None, "", ())


CUT = {
    "qwen3": "<think>\nhm",
    "qwen3_5_think": "hm",
    "nemotron_3_nano": "hm",
    "deepseek_r1_distill": "hm",
    "gptoss": "<|channel|>analysis<|message|>hm",
    "muse_glimmer": " to=self<|message|>hm",
}


@pytest.mark.parametrize(("template", "text"), CUT.items())
def test_thoughts_that_are_cut_leave_no_answer(template: str, text: str) -> None:
    found = taken_apart(template, text)
    assert (found.thoughts, found.answer, found.is_cut_in_thoughts) == ("hm", "", True)
    assert found.thought_tokens == len(ids_of(tokenizer_of(template), text))


def test_tokens_of_thoughts_are_counted_with_their_marks() -> None:
    tokenizer = tokenizer_of("qwen3")
    marked = len(ids_of(tokenizer, "<think>\nhm\n</think>"))
    assert taken_apart("qwen3", f"{THINKING}13<|im_end|>").thought_tokens == marked
    assert taken_apart("qwen3", "13<|im_end|>").thought_tokens == 0
    assert taken_apart("qwen3", "<think></think>13", enable_thinking=False).answer == "13"


def test_json_is_an_answer_where_there_are_no_tools() -> None:
    text = '{"name": "add", "parameters": {"x": 3}}'
    assert taken_apart("llama3_1", f"{text}<|eot_id|>").answer == text


UNKNOWN = {
    "cohere", "cohere2", "gemma", "gemma3", "idefics3", "lfm2", "llama3", "llava_next", "phi3", "phi3_5",
    "qwen2_5_vl", "smolvlm",
}  # fmt: skip
THOUGHTS_ALONE = {"deepseek_r1_distill", "deepseekv3", "muse_glimmer"}


def test_which_families_are_known() -> None:
    readers = {name: reader_of(tokenizer_of(name)) for name in TEMPLATES}
    assert {name for name, reader in readers.items() if reader is None} == UNKNOWN
    assert {name for name, one in readers.items() if one and not one.calls_tools} == THOUGHTS_ALONE
    assert reader_of(byte_tokenizer(None)) is None


def test_a_template_that_was_changed_a_little_is_still_understood() -> None:
    tokenizer = copy.deepcopy(tokenizer_of("qwen3"))
    tokenizer.chat_template = "{# mended #}" + TEMPLATES["qwen3"]
    reader = reader_of(tokenizer)
    assert reader is not None
    assert reader.read([], ids_of(tokenizer, f"{THINKING}{JSON}<|im_end|>")) == Parts(
        "hm", "", (call(x=3),), thought_tokens=len(ids_of(tokenizer, "<think>\nhm\n</think>"))
    )


def test_the_tokenizer_stays_as_it_is_and_its_own_response_template_counts() -> None:
    tokenizer = copy.deepcopy(tokenizer_of("qwen3"))
    reader_of(tokenizer)
    assert tokenizer.response_template is None
    tokenizer.response_template = {
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {"content": {"open": "<answer>", "close": "</answer>"}},
    }
    reader = reader_of(tokenizer)
    assert reader is not None
    assert reader.read([], ids_of(tokenizer, "<answer>13</answer><|im_end|>")).answer == "13"
    assert reader.read([], ids_of(tokenizer, "13<|im_end|>")).fault is not None


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - UNKNOWN - THOUGHTS_ALONE))
def test_what_a_template_writes_is_read_back(name: str) -> None:
    tokenizer = tokenizer_of(name)
    reader = reader_of(tokenizer)
    assert reader is not None
    asked = {"role": "user", "content": "q"}
    arguments = {"x": 3, "y": "    x = 3\n"}
    called = {"type": "function", "id": "cherry000", "function": {"name": "add", "arguments": arguments}}
    turn = {"role": "assistant", "content": "", "tool_calls": [called]}
    template = template_of(tokenizer, [ADD])
    prompt = template.render(conversation({"messages": [asked], "tools": [ADD]}), is_open=True)
    text = template.render(conversation({"messages": [asked, turn], "tools": [ADD]}), is_open=False)
    if not text.startswith(prompt):  # it opens thoughts that this turn has not
        prompt = prompt.rstrip().removesuffix("<think>")
    found = reader.read(ids_of(tokenizer, prompt), ids_of(tokenizer, text.removeprefix(prompt)), [ADD])
    assert (found.fault, found.calls) == (None, (call(**arguments),))


TYPES = {
    "enum": ({"enum": [1, 2]}, 2),
    "const": ({"const": 2}, 2),
    "reference": ({"$ref": "#/$defs/level"}, 2),
    "all of": ({"allOf": [{"type": "integer"}]}, 2),
    "enum of texts": ({"enum": ["2", "3"]}, "2"),
    "no type": ({}, "2"),
    "circle": ({"$ref": "#/$defs/circle"}, "2"),
    "elsewhere": ({"$ref": "https://example.com/x"}, "2"),
}


@pytest.mark.parametrize(("schema", "expected"), TYPES.values(), ids=TYPES)
def test_arguments_have_the_types_that_the_schema_tells(schema: dict[str, Any], expected: Any) -> None:
    definitions = {"level": {"type": "integer"}, "circle": {"$ref": "#/$defs/circle"}}
    parameters = {"type": "object", "properties": {"x": schema}, "$defs": definitions}
    tool = {"type": "function", "function": {"name": "add", "parameters": parameters}}
    text = f"hm</think>{XML.replace('3', '2')}<|im_end|>"
    assert taken_apart("qwen3_6", text, [tool]).calls == (call(x=expected),)


@pytest.mark.parametrize("name", ["qwen3_5_think", "nemotron_3_nano"])
def test_an_argument_keeps_its_indentation(name: str) -> None:
    code = "  if x:\n    y\n"
    text = XML.replace("3", code)
    assert taken_apart(name, f"hm</think>{text}", []).calls == (call(x=code),)
