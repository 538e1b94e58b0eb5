"""Measuring the policy, and choosing what is kept."""

import math
from pathlib import Path

import pytest
import torch

from tests.workers.training.support import make_config, make_rows
from workers.training.base.types import Checkpoint
from workers.training.checkpoints import to_keep
from workers.training.evaluate import Estimate, estimate, kl_to_reference
from workers.training.model.policy import Policy
from workers.training.prompts import make_prompts


def checkpoint(step, kl=0.0):
    return Checkpoint(step, 1, Path(f"step_{step:06d}"), kl, 0.0, None, None, None, None)


def test_the_base_the_best_and_the_one_to_deliver_are_kept():
    saved = [checkpoint(0), checkpoint(2), checkpoint(4), checkpoint(6), checkpoint(8, kl=0.5)]
    gains = {2: 0.1, 4: 0.4, 6: 0.2, 8: 0.4}
    assert [c.step for c in to_keep(saved, 2, gains, chosen=2)] == [0, 2, 4, 8]
    assert [c.step for c in to_keep(saved, 1, gains)] == [0, 4]
    assert [c.step for c in to_keep(saved, 2, {})] == [0, 6, 8]


def test_estimates_skip_gaps():
    found = estimate([1.0, None, 0.0, 1.0, 0.0])
    assert found == Estimate(0.5, pytest.approx(math.sqrt(1 / 3 / 4)), 4)
    assert estimate([2.0, None]) == Estimate(2.0, None, 1)
    assert estimate([None]) is None


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_probe_kl_is_exactly_zero_at_the_base_and_matches_full_forwards_later(sharp, adapter):
    from tests.workers.training.conftest import moved

    config = make_config(sharp, adapter=adapter, temperature=0.5)
    policy = Policy.load(config)
    probe = make_prompts(make_rows("a", "some longer text"), policy.tokenizer, policy.context, "training")
    assert kl_to_reference(policy, probe, config)[:2] == (0.0, 0.0)
    moved(policy)
    found = kl_to_reference(policy, probe, config)
    assert found.mean > 0.01
    assert found.n == 2
    assert found == kl_to_reference(policy, probe, config)
    assert found.mean == pytest.approx(plain_kl(policy, probe, config), rel=1e-3)


def plain_kl(policy, probe, config):
    from workers.training.sampling.rollout import Sampling, sample_groups

    key = ("probe", config.seed)
    means = []
    for group in sample_groups(policy, probe, Sampling(1, config.max_completion_tokens, 1.0, key)):
        prompt, completion = group.prompt.tokens, group.completions[0].tokens
        ids = torch.tensor([[*prompt, *completion]])
        mine = torch.log_softmax(policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1], -1)
        with policy.reference() as reference:
            base = torch.log_softmax(reference(input_ids=ids).logits[0, len(prompt) - 1 : -1], -1)
        means.append((mine.exp() * (mine - base)).sum(-1).mean().item())
    return sum(means) / len(means)
