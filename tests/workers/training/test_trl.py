"""Losses, advantages and whole updates against TRL's on the same batch. TRL is the oracle, nothing else."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.workers.training.conftest import moved
from tests.workers.training.passes.test_forward import make_completions, plain_logprobs
from tests.workers.training.support import make_config
from tests.workers.training.trl_side import (
    CLIP_HIGH,
    CLIP_LOW,
    LIMIT,
    TEMPERATURE,
    G,
    P,
    gradients,
    make_trainer,
    our_gradient,
    their_model,
)
from workers.training.advantages import group_advantages, leave_one_out_advantages, token_weights
from workers.training.base.types import Group
from workers.training.losses import policy_loss
from workers.training.model.policy import Policy
from workers.training.passes.forward import completion_states, make_batches, token_logprobs
from workers.training.rewards import Rewards

pytestmark = [
    pytest.mark.slow,
    # TRL 1.16 asks transformers 5.23 by a name it has renamed.
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]

SAME = {
    "clip_low": CLIP_LOW,
    "clip_high": CLIP_HIGH,
    "temperature": TEMPERATURE,
    "max_completion_tokens": LIMIT,
}

# Our algorithm and what of it is set otherwise; the same in TRL's words.
ALGORITHMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grpo": ({"algorithm": "grpo", "aggregation": "sequence"}, {"loss_type": "grpo"}),
    "dr_grpo": ({"algorithm": "dr_grpo"}, {"loss_type": "dr_grpo", "scale_rewards": "none"}),
    "dapo": ({"algorithm": "dapo", "overlong_buffer": 0.0}, {"loss_type": "dapo"}),
    "gspo": ({"algorithm": "gspo"}, {"loss_type": "grpo", "importance_sampling_level": "sequence"}),
    "cispo": (
        {"algorithm": "cispo", "clip_low": 1.0, "clip_high": 0.3},
        {"loss_type": "cispo", "epsilon_high": 1.3},
    ),
}


def padded(rows, *, left=False):
    width = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width).long()
    for i, row in enumerate(rows):
        at = slice(width - len(row), None) if left else slice(0, len(row))
        ids[i, at], mask[i, at] = torch.tensor(row), 1
    return ids, mask


def trl_inputs(packed, advantages, old, ref):
    """The dictionary TRL hands to its loss: prompts padded left, completions right."""
    prompt_ids, prompt_mask = padded([one.prompt.tokens for one in packed], left=True)
    completion_ids, completion_mask = padded([one.completion.tokens for one in packed])

    def aligned(values):
        out = torch.zeros(completion_ids.shape)
        out[completion_mask.bool()] = torch.cat(values)
        return out

    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": advantages,
        "old_per_token_logps": aligned(old),
        "ref_per_token_logps": aligned(ref),
        "num_items_in_batch": completion_mask.sum(),
    }


def groups_of(packed):
    return [
        Group(packed[i * G].prompt, tuple(one.completion for one in packed[i * G : i * G + G]))
        for i in range(len(packed) // G)
    ]


def our_loss(policy, packed, advantages, old, ref, config):
    everything = torch.ones(P, G, dtype=torch.bool)
    weights = token_weights(groups_of(packed), everything, everything, everything, config)
    total = torch.zeros(())
    for batch in make_batches(packed, policy.passes.most, torch.device("cpu")):
        states = completion_states(policy.model, batch)
        head = policy.model.get_output_embeddings()
        logprobs, _ = token_logprobs(states, head, batch.targets, TEMPERATURE)
        before = torch.cat([old[i] for i in batch.indices])
        of_tokens = advantages[list(batch.indices)].repeat_interleave(batch.lengths)
        reference = torch.cat([ref[i] for i in batch.indices])
        tokens = policy_loss(logprobs, before, before, reference, of_tokens, batch.lengths, config)
        total = total + (tokens.loss * torch.cat([weights[i] for i in batch.indices])).sum()
    return total


@pytest.mark.parametrize("adapter", ["full", "lora"])
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_loss_and_gradient_equal_trls(sharp, tmp_path, algorithm, beta, adapter):
    """Off-policy: the policy before the update, and the reference, are ours moved by noise."""
    packed = make_completions(seed=11, n_prompts=P, group=G, longest=LIMIT)
    ours, theirs = ALGORITHMS[algorithm]
    config = make_config(sharp, **{**SAME, **ours, "adapter": adapter, "beta": beta})
    policy = moved(Policy.load(config))
    generator = torch.Generator().manual_seed(5)
    now = [plain_logprobs(policy.model, one, TEMPERATURE).detach() for one in packed]
    old = [values + 0.3 * torch.randn(values.shape, generator=generator) for values in now]
    ref = [values + 0.5 * torch.randn(values.shape, generator=generator) for values in now]
    advantages = torch.randn(len(packed), generator=generator)

    trainer = make_trainer("GRPO", sharp, tmp_path, beta=beta, **theirs)
    model, weights = their_model(policy, trainer, adapter)
    their_loss = trainer._compute_loss(model, trl_inputs(packed, advantages, old, ref))
    expected = gradients(their_loss, weights)
    assert sum(g.norm() for g in expected.values()) > 0.1
    for budget in (10**6, 100):
        policy.passes.most = budget
        loss = our_loss(policy, packed, advantages, old, ref, config)
        assert loss.item() == pytest.approx(their_loss.item(), abs=1e-5)
        found = gradients(loss, policy.trained())
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4)


# Whole updates: rewards in, gradient out.


def graded_groups(policy, seed=3):
    """Groups as our policy would have sampled them, some completions ended and some cut, and rewards."""
    packed = make_completions(seed=seed, n_prompts=P, group=G, longest=LIMIT - 1)
    completions = []
    for i, one in enumerate(packed):
        ending = (policy.end_ids[0],) if i % 3 else ()
        tokens = tuple(min(token, 200) for token in one.completion.tokens) + ending
        reason = "stop" if ending else "length"
        completion = replace(one.completion, tokens=tokens, finish_reason=reason)
        logprobs = plain_logprobs(policy.model, one._replace(completion=completion), TEMPERATURE)
        completions.append(one._replace(completion=replace(completion, logprobs=tuple(logprobs.tolist()))))
    # Large, so that the 1e-4 that TRL adds to standard deviations is nothing beside them.
    rewards = 1000 * torch.rand(P, G, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return groups_of(completions), rewards


def their_gradient(policy, trainer, groups):
    """TRL's from its own scoring of the same completions, and the advantages it made."""
    model, weights = their_model(policy, trainer, "full")
    prompts = [list(group.prompt.tokens) for group in groups for _ in range(G)]
    completions = [list(completion.tokens) for group in groups for completion in group.completions]
    texts = ["" for _ in completions]
    trainer._generate = lambda _: (
        (prompts, completions, texts)
        if type(trainer).__name__ == "RLOOTrainer"
        else (prompts, completions, None, texts, None, {}, None, None)
    )
    inputs = trainer._generate_and_score_completions([{"prompt": "a"}] * len(completions))
    inputs["completion_mask"] = inputs["completion_mask"].long()
    return gradients(trainer._compute_loss(model, inputs), weights), inputs["advantages"]


@pytest.mark.parametrize(
    ("algorithm", "mask_truncated"),
    # Elsewhere TRL leaves masked completions in the number that a mean over completions divides by.
    [*[(algorithm, False) for algorithm in ALGORITHMS], ("dapo", True)],
)
def test_an_update_has_the_gradient_of_trls_step(sharp, tmp_path, algorithm, mask_truncated):
    ours, theirs = ALGORITHMS[algorithm]
    config = make_config(
        sharp,
        **{**SAME, **ours},
        adapter="full",
        beta=0.04,
        max_grad_norm=1e12,
        mask_truncated=mask_truncated,
    )
    policy = moved(Policy.load(config))
    groups, rewards = graded_groups(policy)
    trainer = make_trainer(
        "GRPO",
        sharp,
        tmp_path,
        reward=lambda **_: rewards.flatten().tolist(),
        beta=0.04,
        mask_truncated_completions=mask_truncated,
        **theirs,
    )
    expected, _ = their_gradient(policy, trainer, groups)
    found = our_gradient(policy, groups, Rewards(rewards, torch.ones(P, G, dtype=torch.bool)), config)
    assert_parallel(found, expected, 1.0)


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_an_update_by_rloo_has_the_gradient_of_trls_step(sharp, tmp_path, beta):
    """The policy has moved, so that the KL in the rewards matters. TRL does not divide by a constant."""
    config = make_config(sharp, **SAME, algorithm="rloo", adapter="full", beta=beta, max_grad_norm=1e12)
    policy = moved(Policy.load(config))
    groups, rewards = graded_groups(policy)
    rewards = rewards / 1000
    trainer = make_trainer("RLOO", sharp, tmp_path, reward=lambda **_: rewards.flatten().tolist(), beta=beta)
    expected, _ = their_gradient(policy, trainer, groups)
    found = our_gradient(policy, groups, Rewards(rewards, torch.ones(P, G, dtype=torch.bool)), config)
    assert_parallel(found, expected, LIMIT)


def assert_parallel(found, expected, factor):
    assert found.keys() == expected.keys()
    size = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(factor * found[name], gradient, atol=1e-5 * float(size), rtol=1e-4)


REWARDS = [[0.1, 0.9, 0.4, 0.2], [1.0, None, 0.0, 1.0], [None, None, 0.3, None], [0.0, 0.5, 0.25, 1.0]]


@pytest.mark.parametrize("scale", [True, False])
def test_group_advantages_equal_trls_with_gaps_too(sharp, tmp_path, scale):
    found = trl_advantages("GRPO", sharp, tmp_path, scale_rewards="group" if scale else "none")
    ours = group_advantages(*ours_of(REWARDS), scale_by_std=scale)
    torch.testing.assert_close(ours, found, atol=1e-3 if scale else 1e-6, rtol=1e-3)


def test_leave_one_out_advantages_equal_trls_with_gaps_too(sharp, tmp_path):
    found = trl_advantages("RLOO", sharp, tmp_path, beta=0.0)
    torch.testing.assert_close(leave_one_out_advantages(*ours_of(REWARDS)), found, atol=1e-6, rtol=1e-5)


def ours_of(rewards):
    graded = torch.tensor([[reward is not None for reward in row] for row in rewards])
    return torch.tensor([[reward or 0.0 for reward in row] for row in rewards]).double(), graded


def trl_advantages(name, sharp, tmp_path, **settings):
    policy = Policy.load(make_config(sharp, adapter="full"))
    groups, _ = graded_groups(policy)
    flat = [reward for row in REWARDS for reward in row]
    trainer = make_trainer(name, sharp, tmp_path, reward=lambda **_: copy.copy(flat), **settings)
    _, advantages = their_gradient(policy, trainer, groups)
    return advantages.view(P, G)
