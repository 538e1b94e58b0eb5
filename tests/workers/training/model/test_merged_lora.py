"""A LoRA layer trained through the sum of base and delta gives PEFT's values and gradients."""

import pytest
import torch

from tests.workers.training.passes.test_forward import make_completions, plain_logprobs
from tests.workers.training.support import make_config
from workers.training.model.merged_lora import _SummedForward
from workers.training.model.policy import Policy
from workers.training.update import make_optimizer


@pytest.fixture
def policy(sharp):
    policy = Policy.load(make_config(sharp, dtype="float32"))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in policy.trained().values():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return policy


def layers(policy):
    return [module for module in policy.model.modules() if isinstance(module.forward, _SummedForward)]


def losses_and_gradient(policy):
    packed = make_completions(seed=2)
    losses = torch.cat([plain_logprobs(policy.model, one) for one in packed])
    gradient = torch.autograd.grad(losses.square().sum(), list(policy.trained().values()))
    return losses, torch.cat([part.flatten() for part in gradient])


def uses_the_sum(policy):
    return [layer.forward.versions == layer.forward.current_versions() for layer in layers(policy)]


def test_the_sum_gives_the_values_and_the_gradient_of_peft(policy):
    assert len(layers(policy)) == 14
    assert not any(uses_the_sum(policy))
    expected, expected_gradient = losses_and_gradient(policy)
    policy.sync_rollout()
    assert all(uses_the_sum(policy))
    found, gradient = losses_and_gradient(policy)
    assert not torch.equal(found, expected)  # another order of additions
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (gradient - expected_gradient).norm() < 1e-4 * expected_gradient.norm()


def test_a_changed_weight_is_never_overlooked(policy):
    policy.sync_rollout()
    with torch.no_grad():
        layers(policy)[3].lora_B["default"].weight.mul_(2)
    assert uses_the_sum(policy).count(False) == 1

    policy.sync_rollout()
    optimizer = make_optimizer(policy, make_config(policy.folder))
    for weight in policy.trained().values():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert not any(uses_the_sum(policy))


@pytest.mark.parametrize("is_summed", [False, True])
def test_the_reference_is_the_base_alone_until_it_is_left(policy, is_summed):
    if is_summed:
        policy.sync_rollout()
    one = make_completions(seed=2)[0]
    tuned = plain_logprobs(policy.model, one)
    with policy.reference() as model:
        reference = plain_logprobs(model, one)
    with policy.adapter.disable_adapter(), torch.no_grad():
        expected = plain_logprobs(policy.model, one)
    assert torch.equal(reference, expected)
    assert (tuned - reference).abs().max() > 0.1
    with pytest.raises(KeyError), policy.reference():
        raise KeyError
    assert torch.equal(plain_logprobs(policy.model, one), tuned)


def test_layers_without_a_sum_are_switched_off_by_peft(policy):
    (one, *_) = layers(policy)
    one.forward = one.forward._peft_forward
    with policy.reference():
        assert all(layer.disable_adapters for layer, _ in policy._merged)
    assert not any(layer.disable_adapters for layer, _ in policy._merged)
