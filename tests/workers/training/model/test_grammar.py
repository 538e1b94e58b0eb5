"""Completions keep to a schema, and the policy that is trained is the one that was sampled from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator

from graders import strict_json
from methods.response_format import grammar_of
from tests.workers.training.conftest import moved
from tests.workers.training.support import (
    FunctionGrader,
    ListRecorder,
    make_config,
    make_rows,
)
from workers.training.base.errors import GrammarFailed, RunCancelled
from workers.training.base.types import Group, Prompt
from workers.training.loop import train
from workers.training.model import grammar as grammar_module
from workers.training.model.grammar import Grammar, compile_grammar
from workers.training.model.policy import Policy
from workers.training.passes.forward import PackedCompletion, completion_states, make_batches, token_logprobs
from workers.training.sampling import decoders
from workers.training.sampling.rollout import SamplerLimits, Sampling, sample_groups

SCHEMA = {
    "type": "object",
    "properties": {
        "town": {"enum": ["Pisa", "Rome"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "n": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["town", "tags", "n"],
    "additionalProperties": False,
}
LETTER = {
    "type": "object",
    "properties": {"a": {"enum": ["b", "c", "d", "e"]}},
    "required": ["a"],
    "additionalProperties": False,
}


def of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


@pytest.fixture(scope="module")
def policy(sharp: Path) -> Policy:
    return moved(Policy.load(make_config(sharp, response_format=of(SCHEMA))))


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    generator = torch.Generator().manual_seed(3)
    return [
        Prompt(row, {}, tuple(torch.randint(0, 256, (n,), generator=generator).tolist()))
        for row, n in enumerate((3, 40, 17, 1, 60))
    ]


def sampling(policy: Policy, **changes: Any) -> Sampling:
    made = Sampling(4, 120, 1.0, ("train", 1, 5), grammar=policy.grammar)
    return dataclasses.replace(made, **changes)


def tokens(groups: list[Group]) -> dict[int, list[tuple[int, ...]]]:
    return {group.prompt.row: [c.tokens for c in group.completions] for group in groups}


@pytest.mark.parametrize("samples", [2, 8], ids=["plain-decoder", "lean-decoder"])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 2.0])
def test_completions_are_valid_unless_they_were_cut(
    policy: Policy, prompts: list[Prompt], samples: int, temperature: float
) -> None:
    groups = sample_groups(policy, prompts, sampling(policy, samples=samples, temperature=temperature))
    completions = [c for group in groups for c in group.completions]
    ended = [c for c in completions if c.finish_reason == "stop"]
    assert len(ended) >= len(completions) / 4
    for completion in ended:
        Draft202012Validator(SCHEMA).validate(strict_json.loads(completion.text))
    assert all(len(c.tokens) == 120 for c in completions if c.finish_reason == "length")
    assert all(c.text.startswith("{") for c in completions)


def test_the_decoder_of_gpus_samples_the_same(policy: Policy, prompts: list[Prompt]) -> None:
    expected = tokens(sample_groups(policy, prompts, sampling(policy)))
    few = SamplerLimits(slots=8)
    found = sample_groups(policy, prompts, sampling(policy), limits=few, make_decoder=decoders.static)
    assert tokens(found) == expected
    assert tokens(sample_groups(policy, prompts, sampling(policy), limits=few, is_queued=True)) == expected


@pytest.mark.parametrize("vocabulary", [1, 8, 31, 32, 33, 262])
def test_masks_are_unpacked_alike_everywhere(vocabulary: int) -> None:
    words = -(-vocabulary // 32)
    packed = torch.randint(0, 256, (5, 4 * words), dtype=torch.uint8)
    wanted = [[not int(row[i // 8]) >> (i % 8) & 1 for i in range(vocabulary)] for row in packed]
    assert grammar_module._banned(packed, vocabulary).tolist() == wanted
    assert grammar_module._banned_by_torch(packed, vocabulary).tolist() == wanted


def test_without_the_grammar_nothing_parses(policy: Policy, prompts: list[Prompt]) -> None:
    for group in sample_groups(policy, prompts, sampling(policy, grammar=None)):
        for completion in group.completions:
            with pytest.raises(strict_json.StrictJsonError):
                strict_json.loads(completion.text)


def test_a_row_samples_the_same_alone_and_in_any_company(policy: Policy, prompts: list[Prompt]) -> None:
    together = tokens(sample_groups(policy, prompts, sampling(policy)))
    assert len({t for row in together.values() for t in row}) == 20
    for prompt in prompts[:2]:
        assert tokens(sample_groups(policy, [prompt], sampling(policy))) == {prompt.row: together[prompt.row]}


def test_a_nucleus_is_taken_among_the_allowed_tokens(policy: Policy, prompts: list[Prompt]) -> None:
    """So small a nucleus is the most likely allowed token."""
    greedy = tokens(sample_groups(policy, prompts, sampling(policy, samples=1, temperature=0.0)))
    nucleus = tokens(sample_groups(policy, prompts, sampling(policy, samples=1, top_p=1e-6)))
    assert nucleus == greedy


def masked_by_hand(policy: Policy, prompt: Prompt, completion: Any, temperature: float) -> list[float]:
    """Log-probabilities by a plain forward pass and a matcher of its own."""
    assert policy.grammar is not None
    ids = torch.tensor([[*prompt.tokens, *completion.tokens]])
    with torch.no_grad():
        logits = policy.rollout_model(input_ids=ids).logits[0, len(prompt.tokens) - 1 : -1].double()
    matcher, found = policy.grammar.start(), []
    for at, token in zip(logits, completion.tokens, strict=True):
        words = policy.grammar.masks([matcher])[0]
        allowed = [i for i in range(len(at)) if words[i // 32] >> (i % 32) & 1]
        chosen = torch.log_softmax(at[allowed] / temperature, 0)
        found.append(float(chosen[allowed.index(token)]))
        policy.grammar.consume(matcher, token)
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_those_among_the_allowed_tokens(
    policy: Policy, prompts: list[Prompt], temperature: float
) -> None:
    for group in sample_groups(policy, prompts[:3], sampling(policy, samples=2, temperature=temperature)):
        for completion in group.completions:
            wanted = masked_by_hand(policy, group.prompt, completion, temperature)
            assert completion.logprobs == pytest.approx(wanted, abs=1e-4)
            assert min(map(abs, completion.logprobs)) < 1e-6  # tokens that had to come


def test_sampler_and_trainer_agree_on_every_token(policy: Policy, prompts: list[Prompt]) -> None:
    in_many_chunks = {"logit_bytes": 4 * 262 * 50}
    groups = sample_groups(policy, prompts, sampling(policy))
    packed = [PackedCompletion(group.prompt, c) for group in groups for c in group.completions]
    assert policy.grammar is not None
    for batch in make_batches(packed, 500, policy.device):
        chosen = [packed[i].completion for i in batch.indices]
        allowed = policy.grammar.allowed(chosen, policy.device)
        head = policy.model.get_output_embeddings()
        states = completion_states(policy.model, batch)
        logprobs, entropy = token_logprobs(states, head, batch.targets, 1.0, allowed, **in_many_chunks)
        sampled = torch.tensor([logprob for c in chosen for logprob in c.logprobs])
        assert float((logprobs.detach() - sampled).abs().max()) <= 1e-5
        assert bool(entropy.isfinite().all())
        free, _ = token_logprobs(states, head, batch.targets, 1.0, **in_many_chunks)
        assert float((free.detach() - sampled).abs().max()) > 1  # the free policy is another one


def test_tokens_that_had_to_come_give_no_gradient(policy: Policy, prompts: list[Prompt]) -> None:
    (group,) = sample_groups(policy, prompts[:1], sampling(policy, samples=1))
    assert policy.grammar is not None
    one = PackedCompletion(
        group.prompt, dataclasses.replace(group.completions[0], tokens=group.completions[0].tokens[:1])
    )
    (batch,) = make_batches([one], 500, policy.device)
    allowed = policy.grammar.allowed([one.completion], policy.device)
    states = completion_states(policy.model, batch).detach().requires_grad_()
    logprobs, _ = token_logprobs(states, policy.model.get_output_embeddings(), batch.targets, 1.0, allowed)
    logprobs.sum().backward()
    assert float(logprobs.detach()) == 0
    assert states.grad is not None
    assert float(states.grad.abs().max()) < 1e-9


def test_every_end_token_may_end_an_answer_and_nothing_else_may_follow(policy: Policy) -> None:
    ends = [256, 258]
    held = compile_grammar(of(LETTER), policy.tokenizer, policy.rollout_model, ends)
    assert held is not None
    matcher = held.start()
    for character in '{"a":"b"}':
        held.consume(matcher, policy.tokenizer.convert_tokens_to_ids(character))
    words = held.masks([matcher])[0]
    assert [i for i in range(32 * len(words)) if words[i // 32] >> (i % 32) & 1] == ends


def test_any_json_object_is_another_format(policy: Policy, prompts: list[Prompt]) -> None:
    grammar = compile_grammar({"type": "json_object"}, policy.tokenizer, policy.rollout_model, policy.end_ids)
    found = sample_groups(policy, prompts, sampling(policy, grammar=grammar, max_tokens=200))
    ended = [c for group in found for c in group.completions if c.finish_reason == "stop"]
    assert ended
    assert all(isinstance(json.loads(c.text), dict) for c in ended)


def test_plain_text_has_no_grammar(policy: Policy) -> None:
    for response_format in (None, {"type": "text"}):
        assert compile_grammar(response_format, policy.tokenizer, policy.rollout_model, [1]) is None


def test_what_cannot_be_followed_is_named(policy: Policy) -> None:
    with pytest.raises(GrammarFailed, match="tokenizer"):
        Grammar(grammar_of({"type": "json_object"}) or "", object(), 262, [1])
    with pytest.raises(GrammarFailed, match="Invalid type: magic"):
        Grammar(grammar_of(of({"type": "magic"})) or "", policy.tokenizer, 262, [1])


def wants(letter: str) -> FunctionGrader:
    def score(text: str, item: Any) -> float:
        try:
            return float(json.loads(text)["a"] == letter)
        except ValueError:
            return 0.0

    return FunctionGrader(score)


def config_of(sharp: Path, **changes: Any) -> Any:
    fields = {
        "response_format": of(LETTER),
        "max_completion_tokens": 40,
        "group_size": 8,
        "eval_interval": 100,
    }
    return make_config(sharp, **{**fields, **changes})


@pytest.mark.parametrize("algorithm", ["grpo", "ppo", "rloo"])
def test_a_run_samples_and_trains_the_same_policy(sharp: Path, tmp_path: Path, algorithm: str) -> None:
    recorder = ListRecorder()
    config = config_of(sharp, algorithm=algorithm, n_epochs=2)
    train(config, make_rows("x", "y"), make_rows("z"), wants("d"), recorder, tmp_path)
    assert len(recorder.series("sampler/mismatch")) == 2
    assert max(recorder.series("sampler/mismatch")) <= 1e-5
    texts = [
        completion.text
        for _, _, _, groups in recorder.all("rollouts")
        for group in groups
        for completion in group.completions
        if completion.finish_reason == "stop"
    ]
    assert texts
    assert all(json.loads(text)["a"] in "bcde" for text in texts)


@pytest.mark.slow
def test_a_letter_is_learnt_under_a_schema(sharp: Path, tmp_path: Path) -> None:
    recorder = ListRecorder()
    config = config_of(sharp, n_epochs=30, prompts_per_step=4, learning_rate=2e-2, beta=0.0)
    train(config, make_rows(*"wxyz"), make_rows("v"), wants("d"), recorder, tmp_path)
    rewards = recorder.series("reward/mean")
    assert sum(rewards[:2]) / 2 < 0.5
    assert sum(rewards[-5:]) / 5 >= 0.9
    assert recorder.series("reward/valid_mean")[-1] == 1


@pytest.mark.slow
def test_a_stopped_run_goes_on_bit_for_bit(sharp: Path, tmp_path: Path) -> None:
    config = config_of(sharp, n_epochs=4, async_steps=1, save_state_every=1)
    rows = make_rows("x", "y")
    whole = ListRecorder()
    train(config, rows, [], wants("d"), whole, tmp_path / "whole")
    first, second, stops = ListRecorder(), ListRecorder(), iter([False, False, True])
    with pytest.raises(RunCancelled):
        train(config, rows, [], wants("d"), first, tmp_path / "parts", lambda: next(stops))
    train(config, rows, [], wants("d"), second, tmp_path / "parts")
    assert {**first.history(), **second.history()} == whole.history()


def test_grammars_of_one_model_share_the_tokenizer_as_it_was_read(policy: Policy) -> None:
    one, other = (
        compile_grammar(of(schema), policy.tokenizer, policy.model, policy.end_ids)
        for schema in (LETTER, {"type": "integer"})
    )
    assert one is not None
    assert other is not None
    assert one._tokenizer is other._tokenizer
