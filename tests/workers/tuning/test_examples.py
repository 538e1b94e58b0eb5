"""What is learned of a row: the answers' tokens with their end, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from methods.rows import Row
from tests.tiny_model import byte_tokenizer
from workers.training.base.errors import OutOfContext, PromptInvalid
from workers.tuning.examples import Example, make_examples, make_pairs, probe_prompts

DROPS_EARLIER = (
    "{% for m in messages %}<begin>{{ m['role'] }}:"
    "{% if m['role'] != 'assistant' or loop.last %}{{ m['content'] }}{% else %}...{% endif %}<end>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<begin>assistant:{% endif %}"
)
USER = {"role": "user", "content": "Hi"}


def answer(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def learned(example: Example, tokenizer: Any) -> str:
    marked = zip(example.tokens, example.is_learned, strict=True)
    return str(tokenizer.decode([token for token, is_learned in marked if is_learned]))


def test_every_answer_is_learned_with_its_end_and_nothing_else() -> None:
    tokenizer = byte_tokenizer()
    row = Row(1, {"messages": [USER, answer("one"), USER, answer("two")]})
    (example,) = make_examples([row], tokenizer, 256, "training")
    assert learned(example, tokenizer) == "one<end>two<end>"
    whole = "<begin>user:Hi<end><begin>assistant:one<end><begin>user:Hi<end><begin>assistant:two<end>"
    assert tokenizer.decode(example.tokens) == whole
    (prompt,) = probe_prompts([example])
    assert tokenizer.decode(prompt.tokens) == whole.removesuffix("two<end>")


def test_an_answer_of_weight_0_is_read_and_not_learned() -> None:
    tokenizer = byte_tokenizer()
    row = Row(1, {"messages": [USER, answer("one", weight=0), USER, answer("two", weight=1)]})
    (example,) = make_examples([row], tokenizer, 256, "training")
    assert learned(example, tokenizer) == "two<end>"
    assert "one" in tokenizer.decode(example.tokens)


def test_where_the_template_changes_earlier_answers_each_is_an_example_as_the_model_will_see_it() -> None:
    tokenizer = byte_tokenizer(DROPS_EARLIER)
    row = Row(1, {"messages": [USER, answer("one"), USER, answer("two")]})
    examples = make_examples([row], tokenizer, 256, "training")
    assert [learned(example, tokenizer) for example in examples] == ["one<end>", "two<end>"]
    assert "assistant:...<end>" in tokenizer.decode(examples[1].tokens)
    assert len(probe_prompts(examples)) == 1


def test_a_pair_shares_its_prompt() -> None:
    tokenizer = byte_tokenizer()
    item = {
        "input": {"messages": [USER]},
        "preferred_output": [answer("yes")],
        "non_preferred_output": [answer("no")],
    }
    (pair,) = make_pairs([Row(1, item)], tokenizer, 256, "training")
    parts = [tokenizer.decode(part) for part in (pair.prompt, pair.chosen, pair.rejected)]
    assert parts == ["<begin>user:Hi<end><begin>assistant:", "yes<end>", "no<end>"]


def test_functions_of_old_reach_the_template_as_tools() -> None:
    template = "{% for t in tools or [] %}{{ t['function']['name'] }} {% endfor %}" + str(
        byte_tokenizer().chat_template
    )
    tokenizer = byte_tokenizer(template)
    row = Row(1, {"messages": [USER, answer("one")], "functions": [{"name": "look_up"}]})
    (example,) = make_examples([row], tokenizer, 256, "training")
    assert str(tokenizer.decode(example.tokens)).startswith("look_up <begin>user")


def test_what_does_not_fit_the_context_is_refused_and_what_just_fits_is_not() -> None:
    tokenizer = byte_tokenizer()
    row = Row(3, {"messages": [USER, answer("one")]})
    (example,) = make_examples([row], tokenizer, 256, "training")
    size = len(example.tokens)
    assert make_examples([row], tokenizer, size, "training") == [example]
    with pytest.raises(OutOfContext, match="training row on line 3 is too long"):
        make_examples([row], tokenizer, size - 1, "training")


def test_a_template_that_leaves_the_answer_out_is_an_error() -> None:
    silent = "{% for m in messages if m['role'] == 'user' %}<begin>{{ m['content'] }}<end>{% endfor %}"
    with pytest.raises(PromptInvalid, match="makes no answer of the training row on line 1"):
        make_examples([Row(1, {"messages": [USER, answer("x")]})], byte_tokenizer(silent), 256, "training")


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLS = {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}]}
SHOWS_CALLS = (
    "{% for m in messages %}<begin>{{ m['role'] }}:{{ m['content'] }}"
    "{% for c in m['tool_calls'] or [] %}[{{ c['function']['name'] }}]{% endfor %}<end>{% endfor %}"
    "{% if add_generation_prompt %}<begin>assistant:{% endif %}"
)
PLAIN_END = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} STOP\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.mark.parametrize(
    ("item", "template", "said"),
    [
        pytest.param({"messages": [USER, answer("")]}, None, "an empty answer", id="no-text"),
        pytest.param({"messages": [USER, answer(" \n ")]}, None, "an empty answer", id="white-space"),
        pytest.param(
            {"messages": [USER, answer("")]}, PLAIN_END, "an empty answer", id="no-text-its-end-is-text"
        ),
        pytest.param(
            {"messages": [USER, answer("x"), USER, answer("")]}, None, "an empty answer", id="the-last"
        ),
        pytest.param(
            {"messages": [USER, answer(""), USER, answer("x")]}, None, "an empty answer", id="the-first"
        ),
    ],
)
def test_an_answer_that_teaches_silence_is_refused(item: dict[str, Any], template: str, said: str) -> None:
    tokenizer = byte_tokenizer(template) if template else byte_tokenizer()
    with pytest.raises(PromptInvalid) as caught:
        make_examples([Row(9, item)], tokenizer, 256, "training")
    assert str(caught.value) == f"The model's chat template makes {said} of the training row on line 9."


@pytest.mark.parametrize("template", [None, PLAIN_END])
def test_an_answer_of_tool_calls_that_the_template_does_not_show_is_refused(template: str | None) -> None:
    tokenizer = byte_tokenizer(template) if template else byte_tokenizer()
    with pytest.raises(
        PromptInvalid, match="leaves out a tool call of the answer of the training row on line 9"
    ):
        make_examples([Row(9, CALLS)], tokenizer, 256, "training")


def test_tool_calls_that_the_template_shows_are_an_answer() -> None:
    tokenizer = byte_tokenizer(SHOWS_CALLS)
    (example,) = make_examples([Row(1, CALLS)], tokenizer, 256, "training")
    assert learned(example, tokenizer) == "[f]<end>"


def test_an_output_of_a_pair_that_is_silent_is_refused() -> None:
    item = {
        "input": {"messages": [USER]},
        "preferred_output": CALLS["messages"][1:],
        "non_preferred_output": [answer("no")],
    }
    with pytest.raises(PromptInvalid, match="leaves out a tool call of the answer"):
        make_pairs([Row(1, item)], byte_tokenizer(), 256, "training")


def test_rows_that_are_too_long_are_all_named() -> None:
    rows = [
        Row(i, {"messages": [USER, answer("x" * (300 if i in (4, 5, 7, 8) else 3))]}) for i in range(1, 9)
    ]
    with pytest.raises(
        OutOfContext, match=r"^4 of 8 training rows are too long \(lines 4-5, 7-8\): the longest"
    ):
        make_examples(rows, byte_tokenizer(), 256, "training")
