"""The sampling copy follows the adapter, also where 16 bits would round its change away."""

import pytest
import torch

from tests.workers.training.support import make_config
from workers.training.model import rollout_weights
from workers.training.model.policy import Policy

BRANCH_ROUNDS = 8e-3
"""Nats: the trainer computes an adapter in bf16. Measured: 5.3e-3."""


def moved(folder, dtype, size):
    """A LoRA policy whose adapter is `size` away from where it began."""
    policy = Policy.load(make_config(folder, dtype=dtype))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in policy.trained().values():
            weight += size * torch.randn(weight.shape, generator=generator)
    policy.sync_rollout()
    return policy


@torch.no_grad()
def mismatch(policy):
    """Mean difference of the sampling copy's logprobs from the trained model's."""
    ids = torch.randint(0, 256, (4, 50), generator=torch.Generator().manual_seed(1))
    sampled, trained = (
        torch.log_softmax(model(input_ids=ids).logits.float(), -1)
        for model in (policy.rollout_model, policy.model)
    )
    return float((sampled - trained).abs().mean())


def branches(policy):
    return sum(
        module.branch is not None
        for module in policy.rollout_model.modules()
        if isinstance(module, rollout_weights.FollowingLinear)
    )


def test_a_bf16_copy_follows_a_small_change_as_the_trainer_does(sharp):
    assert mismatch(moved(sharp, "bfloat16", 0.001)) < BRANCH_ROUNDS


def test_holding_only_the_sum_would_not_follow_a_small_change(sharp):
    policy = moved(sharp, "bfloat16", 0.001)
    for layer, copied in policy._merged:
        rollout_weights.follow(layer, copied, merged_from=0.0)
    assert branches(policy) == 0
    assert mismatch(policy) > 1e-2


def test_a_layer_changes_its_form_with_the_size_of_the_change(sharp):
    policy = moved(sharp, "bfloat16", 0.001)
    assert branches(policy) == 14
    for weight in policy.trained().values():
        weight.data *= 10
    policy.sync_rollout()
    assert branches(policy) == 0
    assert mismatch(policy) < 0.1
    for weight in policy.trained().values():
        weight.data /= 10
    policy.sync_rollout()
    assert branches(policy) == 14
    assert mismatch(policy) < BRANCH_ROUNDS


def test_an_untrained_bf16_adapter_costs_nothing_and_changes_nothing(sharp):
    policy = Policy.load(make_config(sharp, dtype="bfloat16"))
    policy.sync_rollout()
    assert branches(policy) == 0
    assert mismatch(policy) == 0


def test_the_branch_does_not_move_before_the_next_sync(sharp):
    policy = moved(sharp, "bfloat16", 0.001)
    ids = torch.arange(20)[None]
    before = policy.rollout_model(input_ids=ids).logits
    with torch.no_grad():
        for weight in policy.trained().values():
            weight += 0.01
    assert torch.equal(policy.rollout_model(input_ids=ids).logits, before)


@pytest.mark.parametrize("size", [0.0001, 0.001, 0.01])
def test_an_fp32_copy_always_holds_the_sum(sharp, size):
    policy = moved(sharp, "float32", size)
    assert branches(policy) == 0
    assert mismatch(policy) < 1e-5


def test_the_state_dict_holds_the_sum_in_either_form(sharp):
    policy = moved(sharp, "bfloat16", 0.001)
    state = policy.rollout_model.state_dict()
    found = 0
    for name, layer in policy.model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            summed = layer.get_base_layer().weight.float() + layer.get_delta_weight("default").float()
            torch.testing.assert_close(state[name + ".weight"], summed.bfloat16(), atol=0, rtol=0.01)
            assert not torch.equal(state[name + ".weight"], layer.get_base_layer().weight)
            found += 1
    assert found == 14
    assert set(state) == set(Policy.load(make_config(sharp, dtype="bfloat16")).rollout_model.state_dict())
