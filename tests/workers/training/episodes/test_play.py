"""Episodes: each has the same bits whatever the order of replies, and goes as far as its limits."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.tiny_model import byte_tokenizer, make_tiny_model
from tests.workers.training.episodes.support import (
    ENDS,
    TEMPLATE,
    EveryTurnCalls,
    Looking,
    prompts_of,
    random_waits,
)
from tests.workers.training.passes.test_forward import plain_logprobs
from tests.workers.training.support import make_config
from workers.training.episodes.limits import EpisodeLimits
from workers.training.episodes.play import Play
from workers.training.model.policy import Policy
from workers.training.passes.forward import PackedCompletion
from workers.training.sampling import decoders
from workers.training.sampling.rollout import SamplerLimits, Sampling, sample_groups

SAMPLING = Sampling(samples=4, max_tokens=60, temperature=1.0, key=("train", 1, 5))


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """One token in seven ends a turn."""
    tokenizer = byte_tokenizer(TEMPLATE)
    folder = make_tiny_model(tmp_path_factory.mktemp("sharp"), scale=0.3, context=512, tokenizer=tokenizer)
    policy = Policy.load(make_config(folder))
    policy.end_ids = (*ENDS, tokenizer.eos_token_id)
    return policy


def play(policy, environment, *, n=3, steps=6, tokens=30, context=None, **sampling):
    prompts = prompts_of(policy, n)
    limits = EpisodeLimits(steps, tokens, context or policy.context)
    with ThreadPoolExecutor(16) as threads:
        turns = Play(
            environment, policy.tokenizer, EveryTurnCalls(), prompts, limits, policy.end_ids, threads
        )
        asked = dataclasses.replace(SAMPLING, max_tokens=tokens)
        groups = sample_groups(policy, prompts, asked, turns=turns, **sampling)
    return [completion for group in groups for completion in group.completions]


def bits(completions):
    return [(c.tokens, c.logprobs, c.given, c.finish_reason, c.turns) for c in completions]


def test_replies_in_any_order_and_few_slots_change_no_bit(policy):
    expected = bits(play(policy, Looking()))
    assert len({len(turns) for *_, turns in expected}) > 1
    for seed in range(3):
        assert bits(play(policy, Looking(random_waits(seed)))) == expected
    few = {"limits": SamplerLimits(slots=5, first_columns=2)}
    assert bits(play(policy, Looking(random_waits(9)), **few)) == expected


@pytest.mark.parametrize(
    "way", [decoders.compiled, decoders.lean, decoders.by_modules, decoders.static, decoders.general]
)
def test_every_way_of_decoding_samples_the_same_episodes(policy, way):
    expected = play(policy, Looking())
    found = play(policy, Looking(random_waits(1)), make_decoder=way)
    assert [c.tokens for c in found] == [c.tokens for c in expected]


@pytest.mark.parametrize("slots", [None, 5])
def test_episodes_whose_tokens_are_read_late_are_the_same(policy, slots):
    expected = play(policy, Looking())
    found = play(policy, Looking(random_waits(1)), is_queued=True, limits=SamplerLimits(slots))
    assert [(c.tokens, c.given, c.turns) for c in found] == [(c.tokens, c.given, c.turns) for c in expected]


def test_sampled_tokens_have_the_probabilities_of_the_whole_sequence(policy):
    """The importance ratio of an update right after sampling is 1."""
    (prompt,) = prompts_of(policy, 1)
    for completion in play(policy, Looking()):
        exact = plain_logprobs(policy.model, PackedCompletion(prompt, completion))
        exact = torch.stack(list(completion.of_sampled(list(exact))))
        ratio = (exact - torch.tensor(completion.sampled_logprobs)).exp()
        torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-5, rtol=0)


def test_what_comes_between_turns_is_what_the_template_writes(policy):
    completion = max(play(policy, Looking()), key=lambda c: len(c.turns))
    text = policy.tokenizer.decode(
        [t for t, given in zip(completion.tokens, completion.given, strict=True) if given]
    )
    calls = [turn.results[0].call.arguments["n"] for turn in completion.turns[:-1]]
    assert text == "".join(f"<begin>tool:found {n}<end><begin>assistant:" for n in calls)
    assert calls == [turn.tokens for turn in completion.turns[:-1]]
    assert completion.n_sampled == sum(turn.tokens for turn in completion.turns)
    assert completion.turns[0].results[0].tokens == len(f"found {calls[0]}")


def test_an_episode_at_its_last_step_is_cut_and_its_call_is_not_made(policy):
    environment = Looking()
    found = play(policy, environment, steps=2, tokens=400)
    assert {(len(c.turns), c.finish_reason) for c in found} == {(2, "length")}
    assert not any(c.turns[-1].results for c in found)
    assert len(set(environment.started)) == len(found) == len({c.trace_id for c in found})


def test_an_episode_ends_where_the_environment_says_so(policy):
    found = play(policy, Looking(most=2), tokens=400)
    assert {(len(c.turns), c.finish_reason, c.given[-1]) for c in found} == {(2, "stop", False)}


def test_sampled_tokens_of_all_turns_are_bounded_together(policy):
    found = play(policy, Looking(), steps=50, tokens=20)
    assert {c.n_sampled for c in found} == {20}
    assert {c.finish_reason for c in found} == {"length"}
    assert max(len(c.tokens) for c in found) > 40


def test_the_context_ends_an_episode(policy):
    prompt = len(prompts_of(policy, 1)[0].tokens)
    found = play(policy, Looking(), steps=50, tokens=400, context=prompt + 90)
    assert {c.finish_reason for c in found} == {"length"}
    assert max(len(c.tokens) for c in found) <= 90
    assert not any(c.given and c.given[-1] for c in found)


def test_a_cache_too_small_for_what_came_back_is_made_anew(policy):
    class Long(Looking):
        def start(self, item, trace_id):
            looked = super().start(item, trace_id)
            reply = looked.reply
            looked.reply = lambda parts: dataclasses.replace(
                found := reply(parts),
                results=[dataclasses.replace(one, output="x" * 70) for one in found.results],
            )
            return looked

    sizes = []

    def kept(model, size, *rest):
        sizes.append(size.prompt_columns)
        return decoders.compiled(model, size, *rest)

    found = play(policy, Long(random_waits(2)), tokens=30, make_decoder=kept)
    again = play(policy, Long(), tokens=30, make_decoder=decoders.lean)
    assert len(sizes) > 1
    assert [c.tokens for c in found] == [c.tokens for c in again]
    late = play(policy, Long(random_waits(2)), tokens=30, is_queued=True)
    assert [c.tokens for c in late] == [c.tokens for c in again]
    assert max(len(c.tokens) for c in found) > sizes[0]


def test_a_lost_episode_says_why_and_the_others_go_on(policy):
    lost = [c for c in play(policy, Looking(lose=lambda given: given["n"] > 6)) if c.lost]
    every = play(policy, Looking())
    assert 0 < len(lost) < len(every)
    assert {c.lost for c in lost} == {"the tool server answered 500"}


def test_a_fault_of_the_environment_is_raised_where_the_sampler_runs(policy):
    def broken(_):
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        play(policy, Looking(lose=broken))
