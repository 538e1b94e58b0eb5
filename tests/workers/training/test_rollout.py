"""The sampler: the same tokens whatever is beside a row, and exactly the model's probabilities."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.training.support import make_config
from tests.workers.training.test_forward import plain_logprobs
from workers.training import rollout
from workers.training.forward import Answer
from workers.training.policy import Policy
from workers.training.randomness import keyed_seed, shuffled, uniforms
from workers.training.rollout import Sampling, draw, sample_groups
from workers.training.types import Prompt

LENGTHS = (3, 90, 17, 1, 40)


@pytest.fixture(scope="module")
def policy(sharp):
    return Policy.load(make_config(sharp))


@pytest.fixture(scope="module")
def prompts():
    generator = torch.Generator().manual_seed(3)
    return [
        Prompt(row, {}, tuple(torch.randint(0, 256, (n,), generator=generator).tolist()))
        for row, n in enumerate(LENGTHS)
    ]


SAMPLING = Sampling(samples=4, max_tokens=12, temperature=1.0, key=("train", 1, 5))


def tokens(groups):
    return {group.prompt.row: [c.tokens for c in group.completions] for group in groups}


def test_a_row_samples_the_same_tokens_alone_and_in_any_company_and_order(policy, prompts):
    together = tokens(sample_groups(policy, prompts, SAMPLING))
    assert len({t for row in together.values() for t in row}) == 20
    for prompt in prompts:
        assert tokens(sample_groups(policy, [prompt], SAMPLING)) == {prompt.row: together[prompt.row]}
    assert tokens(sample_groups(policy, prompts[::-1], SAMPLING)) == together


def test_fewer_samples_are_the_first_of_more(policy, prompts):
    four = tokens(sample_groups(policy, prompts, SAMPLING))
    two = tokens(sample_groups(policy, prompts, dataclasses.replace(SAMPLING, samples=2)))
    assert two == {row: found[:2] for row, found in four.items()}


@pytest.mark.parametrize("slots", [4, 9])
def test_waiting_for_a_slot_changes_nothing(policy, prompts, slots, monkeypatch):
    expected = tokens(sample_groups(policy, prompts, SAMPLING))
    monkeypatch.setattr(rollout, "MAX_SLOTS", slots)
    assert tokens(sample_groups(policy, prompts, SAMPLING)) == expected


def test_a_cache_that_has_to_grow_changes_nothing(policy, prompts, monkeypatch):
    expected = tokens(sample_groups(policy, prompts, SAMPLING))
    monkeypatch.setattr(rollout, "FIRST_COLUMNS", 1)
    assert tokens(sample_groups(policy, prompts, SAMPLING)) == expected
    assert tokens(sample_groups(policy, prompts[3:4], SAMPLING)) == {3: expected[3]}


def test_completions_that_end_early_leave_and_the_others_go_on(sharp, prompts):
    """With half of the vocabulary as end tokens, slots are freed at every step."""
    policy = Policy.load(make_config(sharp))
    long = tokens(sample_groups(policy, prompts, SAMPLING))
    policy.end_ids = tuple(range(0, 256, 2))
    groups = sample_groups(policy, prompts, SAMPLING)
    for group in groups:
        for completion, uncut in zip(group.completions, long[group.prompt.row], strict=True):
            ends = [i for i, token in enumerate(uncut) if token % 2 == 0 and token < 256]
            assert completion.tokens == (uncut[: ends[0] + 1] if ends else uncut)
            assert completion.finish_reason == ("stop" if ends else "length")
    assert len({len(c.tokens) for group in groups for c in group.completions}) > 3


def test_steps_and_seeds_sample_differently_and_repeat_exactly(policy, prompts):
    first = sample_groups(policy, prompts, SAMPLING)
    assert sample_groups(policy, prompts, SAMPLING) == first
    other_step = dataclasses.replace(SAMPLING, key=("train", 1, 6))
    other_seed = dataclasses.replace(SAMPLING, key=("train", 2, 5))
    for other in (other_step, other_seed):
        assert tokens(sample_groups(policy, prompts, other)) != tokens(first)


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampling_logprobs_equal_the_trainers(kind, temperature, prompts, request):
    policy = request.getfixturevalue(f"{kind}_policy")
    gaps = []
    for group in sample_groups(policy, prompts, dataclasses.replace(SAMPLING, temperature=temperature)):
        for completion in group.completions:
            trained = plain_logprobs(policy.model, Answer(group.prompt, completion), temperature)
            gaps.append((trained - torch.tensor(completion.logprobs)).abs())
    assert torch.cat(gaps).mean() <= 1e-5
    assert torch.cat(gaps).max() <= 3e-5


def test_greedy_equals_the_librarys_own_generation(policy, prompts):
    groups = sample_groups(policy, prompts, dataclasses.replace(SAMPLING, samples=1, temperature=0.0))
    for prompt, group in zip(prompts, groups, strict=True):
        ids = torch.tensor([prompt.tokens])
        expected = policy.rollout_model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, pad_token_id=258
        )[0, len(prompt.tokens) :]
        assert group.completions[0].tokens == tuple(expected.tolist())


def test_a_completion_stops_where_the_context_ends(policy, prompts):
    nearly_full = dataclasses.replace(prompts[0], tokens=tuple(range(253)))
    groups = sample_groups(policy, [nearly_full, prompts[1]], SAMPLING)
    assert policy.context == 256
    assert {len(c.tokens) for c in groups[0].completions} == {3}
    assert max(len(c.tokens) for c in groups[1].completions) == 12


def test_end_tokens_are_not_part_of_the_text(sharp, prompts):
    policy = Policy.load(make_config(sharp))
    every_token = tuple(range(256))
    policy.end_ids = every_token
    completion = sample_groups(policy, prompts[:1], SAMPLING)[0].completions[0]
    assert (len(completion.tokens), completion.text, completion.finish_reason) == (1, "", "stop")


def test_draws_follow_the_probabilities():
    logits = torch.log(torch.tensor([[0.5, 0.0, 0.2, 0.3]])).expand(4000, 4)
    seeds = np.array([keyed_seed("test", i) for i in range(4000)], dtype=np.uint64)
    found, logprobs = draw(logits, torch.from_numpy(uniforms(seeds, np.zeros(4000, np.int64))), 1.0)
    shares = torch.bincount(found, minlength=4) / 4000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0, 0.2, 0.3]), atol=0.03, rtol=0)
    torch.testing.assert_close(logprobs.exp(), torch.tensor([0.5, 0, 0.2, 0.3])[found])


@given(st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=6), st.integers(0, 2**24 - 1))
def test_an_impossible_token_is_never_drawn(values, count):
    logits = torch.tensor([[-torch.inf, *values, -torch.inf]])
    for uniform in (0.0, count * 2**-24, 1 - 2**-24):
        token, logprob = draw(logits, torch.tensor([uniform]), 1.0)
        assert 1 <= token.item() <= len(values)
        assert logprob.isfinite()


def test_uniform_numbers_are_uniform_and_independent():
    seeds = np.array([keyed_seed("a", i) for i in range(500)], dtype=np.uint64)
    drawn = np.stack([uniforms(seeds, np.full(500, i)) for i in range(100)])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.005
    assert abs(drawn.var() - 1 / 12) < 0.002
    assert abs(np.corrcoef(drawn[0], drawn[1])[0, 1]) < 0.15
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.35


def test_an_order_holds_every_row_once_and_differs_by_key():
    assert sorted(shuffled(50, "order", 1, 1)) == list(range(50))
    assert shuffled(50, "order", 1, 1) != shuffled(50, "order", 1, 2)
    assert shuffled(0, "order", 1, 1) == []
