"""A supervised or preferred answer is learned whole with a token that ends it, or its row is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from methods.rows import Row
from tests.chat_templates import TEMPLATES, tokenizer_of
from tests.tiny_model import byte_tokenizer
from tests.workers.training.rendering.test_gaps import MEASURED
from workers.training.base.errors import PromptInvalid
from workers.training.rendering.ends import ends_of, template_end_ids
from workers.training.rendering.template import template_of
from workers.tuning.examples import make_examples, make_pairs, render_examples

LONG = 100_000
SMOLLM2 = Path(__file__).parents[3] / "examples" / "thinking" / "smollm2.jinja"
USER = {"role": "user", "content": "Which?"}
TOOL = {
    "type": "function",
    "function": {"name": "look_up", "description": "d", "parameters": {"type": "object", "properties": {}}},
}


def answer(text: str | None = "Oak.", calls: int = 0, thought: str | None = None) -> dict[str, Any]:
    made = [
        {
            "id": f"call{i:05}",
            "type": "function",
            "function": {"name": f"look{i}", "arguments": f'{{"key": "value{i}"}}'},
        }
        for i in range(calls)
    ]
    more = {"tool_calls": made} if made else {}
    return {"role": "assistant", "content": text, "reasoning_content": thought, **more}


CUT_THOUGHTS = {"deepseek_r1_distill", "deepseekv3"}
"""Templates that cut off what stands before a closing think tag, also of the last answer."""
KINDS: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {
    "text": (answer(), ("Oak.",), ()),
    "thought": (answer(thought="Hm, trees."), ("Hm, trees.", "Oak."), ("thoughts",)),
    "thought in the text": (answer("<think>Hm.</think>Oak."), ("Hm.", "Oak."), ()),
    "call": (answer(None, 1), ("look0", "key", "value0"), ("tool_calls",)),
    "two calls": (answer("", 2), ("look0", "value1"), ("tool_calls", "several_tool_calls")),
    "call beside text": (answer("Wait.", 1), ("Wait.", "look0"), ("tool_calls", "text_beside_tool_calls")),
}


def learned(tokenizer: Any, row: dict[str, Any]) -> str:
    (example,) = make_examples([Row(7, row)], tokenizer, LONG, "training")
    marked = zip(example.tokens, example.is_learned, strict=True)
    return str(tokenizer.decode([token for token, is_learned in marked if is_learned]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_an_answer_is_learned_whole_and_ended_or_its_row_is_refused(name: str, kind: str) -> None:
    said, words, needs = KINDS[kind]
    tokenizer = tokenizer_of(name)
    row: dict[str, Any] = {"messages": [USER, said]}
    if said.get("tool_calls") and "tools" not in MEASURED[name]:
        row["tools"] = [TOOL]
    is_cut = kind == "thought in the text" and name in CUT_THOUGHTS
    if is_cut or set(needs) & set(MEASURED[name]):
        with pytest.raises(PromptInvalid, match="training row on line 7"):
            make_examples([Row(7, row)], tokenizer, LONG, "training")
        return
    text = learned(tokenizer, row)
    assert all(word in text for word in words)
    ends = {tokenizer.eos_token_id, *template_end_ids(tokenizer)}
    assert any(str(tokenizer.convert_ids_to_tokens(end)) in text for end in ends)


@pytest.mark.parametrize("name", sorted(CUT_THOUGHTS))
def test_a_thought_in_the_text_that_is_cut_off_is_missed(name: str) -> None:
    row = {"messages": [USER, answer("<think>7</think>7")]}
    with pytest.raises(
        PromptInvalid, match="leaves out the thought of the answer of the training row on line 1"
    ):
        make_examples([Row(1, row)], tokenizer_of(name), LONG, "training")


def test_an_answer_that_no_token_ends_gets_the_one_that_begins_the_next_turn() -> None:
    tokenizer = tokenizer_of("glm4moe")
    assert learned(tokenizer, {"messages": [USER, answer()]}).endswith("Oak.<|user|>")
    calls = {"messages": [USER, answer(None, 2)], "tools": [TOOL]}
    assert learned(tokenizer, calls).endswith("</tool_call><|observation|>")
    several = {"messages": [USER, answer("One."), USER, answer("Two.")]}
    assert learned(tokenizer, several).count("<|user|>") == 2


@pytest.mark.parametrize("end", ["", " STOP\n"])
def test_where_the_template_knows_no_end_it_is_the_tokenizers(end: str) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}END{% endfor %}".replace("END", end)
    prompt = "{% if add_generation_prompt %}assistant: {% endif %}"
    assert learned(byte_tokenizer(template + prompt), {"messages": [USER, answer()]}) == f"Oak.{end}<end>"


def test_both_outputs_of_a_pair_are_whole_and_ended() -> None:
    pair = {
        "input": {"messages": [USER]},
        "preferred_output": [answer()],
        "non_preferred_output": [answer("No.")],
    }
    tokenizer = tokenizer_of("glm4moe")
    (made,) = make_pairs([Row(1, pair)], tokenizer, LONG, "training")
    assert tokenizer.decode(made.chosen).endswith("Oak.<|user|>")
    assert tokenizer.decode(made.rejected).endswith("No.<|user|>")
    for output in ("preferred_output", "non_preferred_output"):
        thinking = pair | {output: [answer(thought="Hm.")]}
        with pytest.raises(PromptInvalid, match="leaves out the thought of the answer"):
            make_pairs([Row(1, thinking)], tokenizer_of("llama3"), LONG, "training")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ m.content.split('###')[-1] }}", "first ### second"),
        ("{{ m.content | replace('secret', '') }}", "a secret word"),
    ],
)
def test_words_that_a_template_cuts_off_are_missed(template: str, said: str) -> None:
    answered = f"{{% if m.role == 'user' %}}{{{{ m.content }}}}{{% else %}}{template}<end>{{% endif %}}"
    tokenizer = byte_tokenizer("{% for m in messages %}" + answered + "{% endfor %}")
    with pytest.raises(
        PromptInvalid, match="leaves out the text of the answer of the training row on line 1"
    ):
        make_examples([Row(1, {"messages": [USER, answer(said)]})], tokenizer, LONG, "training")
    assert learned(tokenizer, {"messages": [USER, answer("fine")]}) == "fine<end>"


def test_an_answer_of_special_tokens_alone_is_no_silence() -> None:
    assert learned(byte_tokenizer(), {"messages": [USER, answer("<begin>")]}) == "<begin><end>"


def test_earlier_thoughts_that_a_template_drops_are_a_doubt_with_their_lines() -> None:
    thinking = answer(thought="Hm.")
    rows = [
        Row(1, {"messages": [USER, thinking]}),
        Row(2, {"messages": [USER, thinking, USER, thinking]}),
        Row(4, {"messages": [USER, {**thinking, "weight": 0}, USER, answer()]}),
    ]
    _, doubts = render_examples(rows, tokenizer_of("qwen3"), LONG, "training")
    (doubt,) = doubts
    assert doubt.lines == (2, 4)
    assert "leaves out the thought of an earlier answer of 2 of 3 training rows" in doubt.message
    assert render_examples(rows, tokenizer_of("qwen3_8"), LONG, "training").doubts == []


def test_a_prompt_that_opens_a_thought_before_an_answer_without_one_is_a_doubt() -> None:
    rows = [Row(3, {"messages": [USER, answer()]})]
    (doubt,) = render_examples(rows, tokenizer_of("deepseek_r1_distill"), LONG, "training").doubts
    assert doubt.lines == (3,)
    assert "ends the prompt of a model that is asked with '<think>\\n'" in doubt.message
    assert render_examples(rows, tokenizer_of("qwen3_5_think"), LONG, "training").doubts == []


def test_thoughts_in_the_text_that_no_template_knows_of_are_a_doubt() -> None:
    texts = ("<think>\n7\n</think>\n\n7", "7 <think>7</think>", "<think> opens", "\n[THINK]7[/THINK]7")
    rows = [Row(i, {"messages": [USER, answer(text)]}) for i, text in enumerate(texts, start=1)]
    first, second = render_examples(rows, tokenizer_of("llama3"), LONG, "training").doubts
    assert (first.lines, second.lines) == ((1,), (4,))
    assert "row on line 1 stand behind <think> in the text of the answer" in first.message
    assert "`cherry models add --template`" in first.message
    assert render_examples(rows[:1], tokenizer_of("qwen3"), LONG, "training").doubts == []


def test_thoughts_in_the_text_behind_those_of_the_template_are_a_doubt() -> None:
    text = "<think>\n7\n</think>\n\n7"
    rows = [
        Row(1, {"messages": [USER, answer(text)]}),
        Row(2, {"messages": [USER, answer("7", thought="7"), USER, answer("7", thought="7")]}),
    ]
    (doubt,) = render_examples(rows, byte_tokenizer(SMOLLM2.read_text()), LONG, "training").doubts
    assert doubt.lines == (1,)
    assert "opens thoughts before it too" in doubt.message
    assert "give thoughts as reasoning_content" in doubt.message


def test_a_token_that_the_model_has_no_row_for_is_named_with_its_line() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens("<tool>")
    rows = [Row(3, {"messages": [USER, answer("Use <tool>.")]}), Row(5, {"messages": [USER, answer()]})]
    with pytest.raises(
        PromptInvalid, match=r"no embedding row for the token '<tool>' \(259; .* 259 .*on line 3"
    ):
        make_examples(rows, tokenizer, LONG, "training", 259)
    assert len(make_examples(rows, tokenizer, LONG, "training", 260)) == 2


@pytest.mark.parametrize(
    ("name", "after_answer", "after_calls"),
    [
        ("gptoss", "<|return|>", "<|call|>"),
        ("gemma4_v5", "<turn|>", "<|tool_response>"),
        ("glm4moe", "<|user|>", "<|observation|>"),
        ("qwen3", "<|im_end|>", "<|im_end|>"),
        ("llama3_1", "<|eot_id|>", "<|eot_id|>"),
        ("gemma3", "<end_of_turn>", None),
    ],
)
def test_what_ends_answers_and_calls(name: str, after_answer: str, after_calls: str | None) -> None:
    tokenizer = tokenizer_of(name)
    ends = ends_of(template_of(tokenizer, [TOOL]))
    names = [None if end is None else tokenizer.convert_ids_to_tokens(end) for end in ends]
    assert names == [after_answer, after_calls]
