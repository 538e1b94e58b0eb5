"""Budgets close thoughts, masks wait for that, and what is unparsed is graded on nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from graders import FailureKind, Grade, Sample
from methods import metrics as names
from tests.chat_templates import tokenizer_of
from tests.tiny_model import make_tiny_model
from tests.workers.training.support import FunctionGrader, make_config
from workers.training.base.parts import Parts, ToolCall
from workers.training.base.types import Completion, Group, Prompt
from workers.training.hints import Hints
from workers.training.metrics import train_metrics
from workers.training.model.base_model import BaseModel, load_base
from workers.training.model.grammar import Grammar, grammar_for
from workers.training.model.held import Held
from workers.training.model.policy import Policy
from workers.training.rendering.parts import PartsReader, reader_of
from workers.training.rewards import GradePool, JobGroup
from workers.training.sampling.rollout import Sampling, sample_groups

LETTER = {
    "type": "json_schema",
    "json_schema": {
        "name": "a",
        "schema": {"type": "object", "properties": {"a": {"enum": ["b"]}}, "required": ["a"]},
    },
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    folder: Path = tmp_path_factory.mktemp("thinking")
    tokenizer = tokenizer_of("qwen3_5_think")
    make_tiny_model(folder, tokenizer=tokenizer, hidden=16, layers=1, scale=0.3, vocabulary=420)
    return load_base(folder)


def policy_of(base: BaseModel, name: str = "qwen3_5_think") -> Policy:
    tokenizer = tokenizer_of(name)
    return Policy(dataclasses.replace(base, tokenizer=tokenizer), make_config(base.folder, adapter="full"))


def prompt_of(name: str) -> Prompt:
    text = tokenizer_of(name).apply_chat_template(
        [{"role": "user", "content": "q"}], add_generation_prompt=True, tokenize=False
    )
    return Prompt(0, {}, tuple(ids_of(name, str(text))))


def ids_of(name: str, text: str) -> list[int]:
    ids: list[int] = tokenizer_of(name)(text, add_special_tokens=False)["input_ids"]
    return ids


def sampled(
    policy: Policy, name: str, budget: int | None, most: int = 60, **changes: Any
) -> list[Completion]:
    sampling = Sampling(8, most, 1.0, ("t", 1), reader=policy.reader, thinking_tokens=budget)
    is_queued = changes.pop("is_queued", None)
    asked = dataclasses.replace(sampling, **changes)
    (group,) = sample_groups(policy, [prompt_of(name)], asked, is_queued=is_queued)
    return list(group.completions)


@pytest.mark.parametrize("budget", [0, 1, 7])
def test_thoughts_are_closed_when_their_budget_is_used_up(base: BaseModel, budget: int) -> None:
    policy = policy_of(base)
    ending = ids_of("qwen3_5_think", "\n</think>\n\n")
    completions = sampled(policy, "qwen3_5_think", budget)
    reached = [one for one in completions if any(one.given)]
    assert reached
    for one in reached:
        assert list(one.tokens[budget : budget + len(ending)]) == ending
        assert one.given == tuple(budget <= i < budget + len(ending) for i in range(len(one.tokens)))
        assert set(one.logprobs[budget : budget + len(ending)]) == {0.0}
        assert one.n_sampled == len(one.tokens) - len(ending)
        assert one.parts is not None
        assert one.parts.thought_tokens == budget + len(ending) - 2  # the white space behind the mark
        assert not one.parts.is_cut_in_thoughts


@pytest.mark.parametrize(("most", "is_held"), [(1, False), (30, True)], ids=["one-token", "held"])
def test_a_gpus_steps_close_thoughts_where_others_do(base: BaseModel, most: int, is_held: bool) -> None:
    """Given tokens are on the device before the next is drawn, and masks wait for them."""
    policy = policy_of(base)
    ends = [policy.tokenizer.eos_token_id]
    grammar = grammar_for(LETTER, policy.tokenizer, 420, ends, policy.reader) if is_held else None
    for budget in (0, 3):
        one_by_one = sampled(policy, "qwen3_5_think", budget, most, grammar=grammar)
        queued = sampled(policy, "qwen3_5_think", budget, most, grammar=grammar, is_queued=True)
        for found, expected in zip(queued, one_by_one, strict=True):
            assert (found.tokens, found.given, found.parts) == (
                expected.tokens,
                expected.given,
                expected.parts,
            )


def test_without_a_budget_a_random_model_thinks_to_the_end(base: BaseModel) -> None:
    completions = sampled(policy_of(base), "qwen3_5_think", None)
    assert all(one.given == () and one.parts and one.parts.is_cut_in_thoughts for one in completions)


def test_the_first_tokens_are_the_same_with_a_budget_and_without(base: BaseModel) -> None:
    policy = policy_of(base)
    free, bounded = (sampled(policy, "qwen3_5_think", budget) for budget in (None, 7))
    pairs = zip(free, bounded, strict=True)
    assert all(one.tokens[:7] == other.tokens[:7] for one, other in pairs)


def grammar_of(name: str) -> tuple[Grammar, PartsReader]:
    tokenizer = tokenizer_of(name)
    reader = reader_of(tokenizer)
    assert reader is not None
    grammar = grammar_for(LETTER, tokenizer, len(tokenizer), [tokenizer.eos_token_id], reader)
    assert grammar is not None
    return grammar, reader


def allowed(grammar: Grammar, held: Held, name: str) -> set[str] | None:
    """Returns the texts of the tokens that may come; None where all may."""
    if held.is_free:
        return None
    (words,) = grammar.masks([held])
    ids = [i for i in range(len(tokenizer_of(name))) if words[i // 32] >> (i % 32) & 1]
    return {tokenizer_of(name).decode([i]) for i in ids}


def along(name: str, text: str, *, has_tools: bool = False) -> set[str] | None:
    """Returns what may come after a text that a model of this template has written."""
    grammar, _ = grammar_of(name)
    held = grammar.start(prompt_of(name).tokens, has_tools=has_tools)
    for token in ids_of(name, text):
        grammar.consume(held, token)
    return allowed(grammar, held, name)


MASKS: Mapping[str, tuple[str, str, set[str] | None]] = {
    "an answer or the opening mark": ("qwen3", "", {"{", "<"}),
    "on with the mark": ("qwen3", "<thi", {"n"}),
    "thoughts are free": ("qwen3", "<think>", None),
    "so are those that the prompt opened": ("qwen3_5_think", "", None),
    "their end begins as it likes": ("qwen3_5_think", "hm\n</thin", None),
    "the template's white space": ("qwen3_5_think", "hm\n</think>", {"\n", "{"}),
    "no more of it": ("qwen3_5_think", "hm\n</think>\n\n", {"{"}),
    "the answer alone": ("qwen3_5_think", "hm\n</think>\n\n{", {'"', " ", "\n"}),
    "closed by the prompt": ("qwen3_5_nothink", "", {"{"}),
    "white space before the mark": ("glm4moe", "", {"\n", "<", "{"}),
    "a channel": ("gptoss", "", {"<|channel|>"}),
    "which one": ("gptoss", "<|channel|>", {"a", "f"}),
    "a header behind thoughts": ("gptoss", "<|channel|>analysis<|message|>hm<|end|>", {"<|start|>"}),
    "the answer behind its header": ("gptoss", "<|channel|>final<|message|>", {"{"}),
    "a family without thoughts": ("qwen2_5", "", {"{"}),
}


@pytest.mark.parametrize(("name", "text", "expected"), MASKS.values(), ids=MASKS)
def test_masks_wait_for_the_thoughts(name: str, text: str, expected: set[str] | None) -> None:
    assert along(name, text) == expected


def test_a_call_may_stand_in_place_of_an_answer_where_there_are_tools() -> None:
    closed = "hm\n</think>\n\n"
    assert along("qwen3_5_think", closed, has_tools=True) == {"{", "<"}
    assert along("qwen3_5_think", f"{closed}<tool_call>", has_tools=True) is None


def test_places_without_a_mask_are_left_alone() -> None:
    grammar, _ = grammar_of("qwen3_5_think")
    tokens = tuple(ids_of("qwen3_5_think", 'hm</think>{"a":"b"}'))
    completion = Completion(tokens, (0.0,) * len(tokens), "", "stop")
    found = grammar.allowed([completion], torch.device("cpu"), [prompt_of("qwen3_5_think")])
    n_thoughts = len("hm</think>")
    assert (found.which[:n_thoughts] == -1).all()
    assert (found.which[n_thoughts:] >= 0).all()
    logits = torch.randn(len(tokens), len(tokenizer_of("qwen3_5_think")))
    masked = found.apply(logits.clone())
    assert torch.equal(masked[:n_thoughts], logits[:n_thoughts])
    assert bool((masked[n_thoughts:] < -1e19).any(1).all())


def graded(completion: Completion, least: float = 0.0) -> tuple[Grade, list[Sample]]:
    seen: list[Sample] = []

    class Noted(FunctionGrader):
        def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
            seen.append(sample)
            return Grade(1.0)

    pool = GradePool(Noted(lambda *_: 1.0), threads=1, least=least)
    grade = pool.wait(pool.submit(completion, JobGroup({}, 1), 0))
    pool.close()
    return grade, seen


def test_an_unparsed_completion_is_graded_on_nothing_and_trains_as_the_least() -> None:
    unparsed = Completion((1,), (0.0,), "x", "stop", parts=Parts(fault="It has text in no part."))
    grade, seen = graded(unparsed)
    assert grade.failure is not None
    assert (grade.failure.kind, grade.failure.message) == (
        FailureKind.SAMPLE_PARSE,
        "It has text in no part.",
    )
    assert (grade.reward, seen) == (0.0, [])
    assert graded(unparsed, least=-2.0)[0].reward == -2.0


def test_graders_see_answer_calls_and_thoughts() -> None:
    parts = Parts("hm", "13", (ToolCall("add", {"x": 1}),), thought_tokens=4)
    _, (sample,) = graded(Completion((1,), (0.0,), "<think>hm</think>13", "stop", parts=parts))
    assert (sample.output_text, sample.output_thoughts) == ("13", "hm")
    assert sample.raw_text == "<think>hm</think>13"
    (call,) = sample.output_tools
    assert (call["type"], call["function"]) == ("function", {"name": "add", "arguments": '{"x": 1}'})


def test_thoughts_cut_and_unparsed_completions_are_counted_and_told() -> None:
    parts = [
        Parts("hm", "13", thought_tokens=4),
        Parts("h", is_cut_in_thoughts=True, thought_tokens=8),
        Parts(fault="No."),
        None,
    ]
    completions = tuple(Completion((1,), (0.0,), "", "stop", parts=one) for one in parts)
    values = train_metrics([Group(Prompt(0, {}, (1,)), completions, (Grade(1.0),) * 4)])
    of_train = {
        names.REASONING_TOKENS_MEAN: 3.0,
        names.REASONING_TOKENS: 12.0,
        names.CUT_IN_THOUGHTS_SHARE: 0.25,
        names.UNPARSED_SHARE: 0.25,
    }
    assert {name: values[name.format(split="train")] for name in of_train} == of_train
    hints, config = Hints(), make_config(Path("m"))
    told = list(hints.after(1, 10, values, config))
    assert ["cut inside their thoughts" in each for each in told] == [True, False]
    assert "25% of the completions do not lie in the parts" in told[1]
    assert list(hints.after(2, 10, values, config)) == []
