"""Measuring against the base, and choosing what is kept and delivered."""

import math
from pathlib import Path

import pytest
import torch

from tests.workers.training.support import make_config, make_rows
from workers.training.base.types import Checkpoint
from workers.training.checkpoints import Candidate, make_candidate, select, to_keep
from workers.training.evaluate import (
    Estimate,
    estimate,
    lower_bound,
    paired_difference,
    t_quantile,
)
from workers.training.measures.kl_probe import probe_kl
from workers.training.model.policy import Policy
from workers.training.prompts import make_prompts


def candidate(step, reward=None, bound=None, kl=0.0):
    return Candidate(Checkpoint(step, 1, Path(f"step_{step:06d}"), kl, 0.0, reward, None, None, None), bound)


BASE = candidate(0, 0.5, 0.0)


@pytest.mark.parametrize(
    ("candidates", "step"),
    [
        pytest.param([BASE, candidate(2, 0.9, 0.3), candidate(4, 0.8, 0.2)], 2, id="highest-bound"),
        pytest.param([BASE, candidate(2, 0.6, -0.05)], 0, id="not-surely-better-is-the-base"),
        pytest.param([BASE, candidate(2, 0.9, None)], 0, id="no-evidence-is-the-base"),
        pytest.param([BASE, candidate(2, 0.5, 0.0, kl=0.1)], 0, id="same-as-base-costs-kl"),
        pytest.param(
            [BASE, candidate(2, 1.0, 0.5, kl=0.2), candidate(4, 1.0, 0.5, kl=0.1)], 4, id="tie-lower-kl"
        ),
        pytest.param([candidate(0), candidate(2), candidate(4)], 4, id="no-validation-is-the-last"),
    ],
)
def test_what_is_delivered(candidates, step):
    assert select(candidates).step == step


def test_the_base_the_best_and_the_one_to_deliver_are_kept():
    candidates = [
        BASE,
        candidate(2, 0.6, 0.05),
        candidate(4, 0.9, 0.02),
        candidate(6, 0.7, 0.01),
        candidate(8, 0.9, 0.01, kl=0.5),
    ]
    assert [c.step for c in to_keep(candidates, 2)] == [0, 2, 4, 8]
    assert [c.step for c in to_keep(candidates, 1)] == [0, 2, 4]
    assert [c.step for c in to_keep([candidate(s) for s in (0, 2, 4, 6)], 2)] == [0, 4, 6]


def test_estimates_skip_gaps():
    found = estimate([1.0, None, 0.0, 1.0, 0.0])
    assert found == Estimate(0.5, pytest.approx(math.sqrt(1 / 3 / 4)), 4)
    assert estimate([2.0, None]) == Estimate(2.0, None, 1)
    assert estimate([None]) is None


def test_differences_are_paired_by_row():
    found = paired_difference([1.0, 0.6, None, 0.2, 0.9, 0.7], [0.5, 0.1, 0.9, None, 0.4, 0.2])
    assert found == Estimate(pytest.approx(0.5), pytest.approx(0.0, abs=1e-12), 4)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_how_sure_one_to_three_rows_are_is_not_known(n):
    difference = paired_difference([0.9] * n + [None], [0.2] * n + [0.5])
    assert difference == Estimate(pytest.approx(0.7), None, n)
    assert lower_bound(difference) is None
    tuned = make_candidate(Path("step"), 2, 1, Estimate(0.1, None, 1), difference, difference)
    assert tuned.bound is None
    assert tuned.checkpoint.kl_stderr is None
    assert tuned.checkpoint.valid_reward_stderr is None
    assert tuned.checkpoint.advantage_stderr is None
    assert select([BASE, tuned]) is BASE


def test_four_rows_that_agree_are_certain():
    difference = paired_difference([0.9] * 4, [0.2] * 4)
    assert lower_bound(difference) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("dof", "expected"), [(1, 6.3138), (2, 2.9200), (3, 2.3534), (5, 2.0150), (10, 1.8125), (99, 1.6604)]
)
def test_student_quantiles(dof, expected):
    assert t_quantile(dof) == pytest.approx(expected, abs=0.01)


def test_the_bound_lies_below_the_mean_by_students_t():
    assert lower_bound(Estimate(0.4, 0.1, 11)) == pytest.approx(0.4 - 0.18125, abs=1e-3)


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_probe_kl_is_exactly_zero_at_the_base_and_matches_full_forwards_later(sharp, adapter):
    from tests.workers.training.conftest import moved

    config = make_config(sharp, adapter=adapter, temperature=0.5)
    policy = Policy.load(config)
    probe = make_prompts(make_rows("a", "some longer text"), policy.tokenizer, policy.context, "training")
    assert probe_kl(policy, probe, config).start.per_token == (0.0, 0.0, 2)
    moved(policy)
    found = probe_kl(policy, probe, config).start.per_token
    assert found.mean > 0.01
    assert found.n == 2
    assert found == probe_kl(policy, probe, config).start.per_token
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
