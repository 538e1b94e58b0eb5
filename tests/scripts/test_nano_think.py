"""The thinking model is taught what is right, and reads the tokens of its own chat template."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest

pytest.importorskip("torch")

from scripts.nano_think import arithmetic, data, examples, lookups, tools
from scripts.nano_think.encoding import FORCED_CLOSES, Encoder
from scripts.nano_think.turns import CALIBRATED_MIX, Asked, Call, Conversation, Said, Told

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "workers" / "models"
MODEL = MODELS / "cherry_nano_think"
EXAMPLES = ROOT / "examples"
LARGEST_PACKAGE_SHARE = 25_000_000
"""Bytes of both built-in models together (the issue's bar)."""
TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(MODEL)


def chat(conversation: Conversation) -> list[dict[str, Any]]:
    return [message for turn in conversation.turns for message in _messages(turn)]


def _messages(turn: Asked | Told | Said) -> list[dict[str, Any]]:
    if isinstance(turn, Asked):
        return [{"role": "user", "content": turn.text}]
    if isinstance(turn, Told):
        return [{"role": "tool", "content": text} for text in turn.results]
    calls = [{"type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in turn.calls]
    said = {"role": "assistant", "content": turn.text, "reasoning_content": turn.thoughts or ""}
    return [said | ({"tool_calls": calls} if calls else {})]


def uncut(seed: int, count: int) -> list[Conversation]:
    made = islice(data.conversations(Random(seed), data.PHASES[-1]), count)
    return [
        replace(one, turns=tuple(replace(t, cut=None) if isinstance(t, Said) else t for t in one.turns))
        for one in made
    ]


def test_every_line_of_the_thoughts_of_a_sum_is_true_and_the_last_is_the_answer() -> None:
    rng = Random(0)
    for _ in range(2_000):
        asked = arithmetic.random_sum(rng)
        worked, value = arithmetic.thoughts(rng, asked, slips=False)
        lines = worked.split("\n")
        assert value == asked.value == eval(asked.text)
        assert lines[-1] == str(value)
        for line in lines:
            left, _, right = line.partition("=")
            assert not right or eval(left) == int(right), (asked.text, line)


def test_a_slip_is_answered_as_it_was_thought() -> None:
    rng = Random(1)
    wrong = 0
    for _ in range(500):
        asked = arithmetic.random_sum(rng)
        worked, value = arithmetic.thoughts(rng, asked, slips=True)
        assert worked.split("\n")[-1] == str(value)
        wrong += value != asked.value
    assert wrong > 480


def test_thoughts_of_a_look_up_read_one_line_after_the_other() -> None:
    rng = Random(2)
    for _ in range(500):
        walk = lookups.random_walk(rng)
        at, text = walk.start, walk.table.text(rng).split("\n")
        for what, whom, value in walk.steps(rng, slips=False):
            assert whom == at
            assert lookups.line(what, whom, value) in text
            at = value


def test_only_the_right_style_calls_rightly_and_answers_by_the_result() -> None:
    rng = Random(3)
    right = 0
    for _ in range(2_000):
        task = tools.random_task(rng)
        turns = tools.used(rng, task, style := CALIBRATED_MIX.uses_tools(rng))
        called = [turn.calls for turn in turns if isinstance(turn, Said) and turn.calls]
        is_right = called == [(task.call(task.key),)] and turns[-1].text == task.value  # type: ignore[union-attr]
        assert is_right or style != "right"
        right += is_right
    assert 0.15 < right / 2_000 < 0.25


def test_rows_of_the_examples_come_from_the_recipe(tmp_path: Path) -> None:
    examples.main(["--out", str(tmp_path)])
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.json*"))
    assert len(made) == 7
    for path in made:
        assert (tmp_path / path).read_text() == (EXAMPLES / path).read_text()


@pytest.mark.parametrize("name", ["thinking", "tools"])
def test_no_row_of_an_example_is_in_two_splits(name: str) -> None:
    splits = [
        {json.loads(line)["messages"][0]["content"] for line in path.read_text().splitlines()}
        for path in (EXAMPLES / name).glob("*.jsonl")
    ]
    assert len(set.union(*splits)) == sum(examples.SPLITS.values())


def test_training_sees_the_tokens_of_the_chat_template(tokenizer: Any) -> None:
    encode = Encoder(tokenizer)
    for conversation in uncut(4, 300):
        messages, offered = chat(conversation), list(conversation.tools) or None
        rendered = tokenizer.apply_chat_template(messages, tools=offered, return_dict=False)
        assert encode(conversation).ids == rendered


@pytest.mark.parametrize("forced", FORCED_CLOSES)
def test_a_close_that_somebody_else_wrote_has_no_loss(tokenizer: Any, forced: str) -> None:
    said = Said("47+8", "55", cut=4)
    encoded = Encoder(tokenizer)(Conversation((Asked("47 + 8"), said), "55"), forced)
    learnt = [token for token, weight in zip(encoded.ids, encoded.weights, strict=True) if weight == 1.0]
    assert tokenizer.decode(learnt) == "55<|im_end|>"
    assert tokenizer.decode(encoded.ids).endswith(f"<think>\n47+8{forced}55<|im_end|>\n")


def test_every_turn_is_taken_apart_and_written_the_same_again(tokenizer: Any) -> None:
    for conversation in uncut(5, 300):
        messages, offered = chat(conversation), list(conversation.tools) or None
        for end in [n for n, message in enumerate(messages) if message["role"] == "assistant"]:
            prompt, whole = (
                tokenizer.apply_chat_template(
                    messages[:stop], tools=offered, add_generation_prompt=stop == end, return_dict=False
                )
                for stop in (end, end + 1)
            )
            assert whole[: len(prompt)] == prompt
            parsed = tokenizer.parse_response(whole[len(prompt) :], prefix=prompt, tools=offered)
            empty = {"content": "", "reasoning_content": "", "tool_calls": []}
            assert empty | parsed == empty | messages[end]


def test_without_thinking_the_prompt_holds_an_empty_thought(tokenizer: Any) -> None:
    asked = [{"role": "user", "content": [{"type": "text", "text": "4"}, {"type": "text", "text": "7"}]}]
    settings = {"tokenize": False, "add_generation_prompt": True}
    plain = tokenizer.apply_chat_template(asked, **settings)
    assert plain == "<|im_start|>user\n47<|im_end|>\n<|im_start|>assistant\n"
    closed = tokenizer.apply_chat_template(asked, enable_thinking=False, **settings)
    assert closed == plain + "<think>\n\n</think>\n\n"
    answered = [*asked, {"role": "assistant", "content": "47"}]
    assert tokenizer.apply_chat_template(answered, tokenize=False).startswith(closed + "47<|im_end|>")


def test_arguments_may_be_text_and_calls_several(tokenizer: Any) -> None:
    calls = [Call("get_price", {"item": name}) for name in ("a", "b")]
    texts, objects = (
        [{"function": {"name": c.name, "arguments": form(c.arguments)}} for c in calls]
        for form in (json.dumps, dict)
    )
    rendered = [
        tokenizer.apply_chat_template([{"role": "assistant", "tool_calls": form}], tokenize=False)
        for form in (texts, objects)
    ]
    assert rendered[0] == rendered[1]
    assert rendered[0].count("<tool_call>") == 2


def test_tags_are_single_tokens_that_stay_in_decoded_text(tokenizer: Any) -> None:
    for tag in TAGS:
        ids = tokenizer(tag)["input_ids"]
        assert len(ids) == 1
        assert tokenizer.decode(ids, skip_special_tokens=True) == tag


def test_the_built_in_models_are_small_and_the_thinker_loads_plainly(tokenizer: Any) -> None:
    transformers = pytest.importorskip("transformers")
    assert sum(path.stat().st_size for path in MODELS.rglob("*")) <= LARGEST_PACKAGE_SHARE
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL)
    assert 3_000_000 < model.num_parameters() < 7_000_000
    assert model.config.max_position_embeddings >= 2048
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.eos_token_id in model.generation_config.eos_token_id


@pytest.mark.slow
@pytest.mark.long
def test_the_model_thinks_better_than_it_guesses_and_calls_too_seldom() -> None:
    torch = pytest.importorskip("torch")
    from scripts.nano_think.evaluate import example_questions, load, shares

    torch.manual_seed(0)
    model, tokenizer = load(MODEL)
    _, sampled, _, closed = shares(model, tokenizer, example_questions(EXAMPLES / "thinking", "valid"))
    assert closed + 0.15 < sampled < 0.75
    _, called, *_ = shares(model, tokenizer, example_questions(EXAMPLES / "tools", "valid"))
    assert 0.05 < called < 0.3
