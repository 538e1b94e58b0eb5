import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.training.losses import grpo_loss, kl_exact, kl_k3

CLIP = {"clip_low": 0.2, "clip_high": 0.27}


def logs(*probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "is_clipped"),
    [
        pytest.param(1.0, 2.0, -2.0, False, id="on-policy"),
        pytest.param(1.1, 2.0, -2.2, False, id="inside"),
        pytest.param(1.5, 2.0, -2.54, True, id="good-and-already-likelier"),
        pytest.param(1.5, -2.0, 3.0, False, id="bad-and-likelier-keeps-its-gradient"),
        pytest.param(0.5, -2.0, 1.6, True, id="bad-and-already-rarer"),
        pytest.param(0.5, 2.0, -1.0, False, id="good-and-rarer-keeps-its-gradient"),
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, loss, is_clipped):
    policy = logs(0.25).requires_grad_()
    rollout = policy.detach() - math.log(ratio)
    found = grpo_loss(policy, rollout, rollout, torch.tensor([advantage]).double(), beta=0.0, **CLIP)
    assert found.loss.item() == pytest.approx(loss)
    assert found.ratio.item() == pytest.approx(ratio)
    assert found.is_clipped.item() is is_clipped
    found.loss.sum().backward()
    assert (policy.grad.item() == 0) is is_clipped


def test_kl_penalty_by_hand():
    policy, rollout, reference = logs(0.5), logs(0.4), logs(0.25)
    found = grpo_loss(policy, rollout, reference, torch.zeros(1).double(), beta=0.1, **CLIP)
    k3 = 0.5 - math.log(0.5) - 1
    assert found.kl.item() == pytest.approx(k3)
    assert found.loss.item() == pytest.approx(0.1 * 1.25 * k3)


def test_the_gradient_at_ratio_one_is_the_plain_policy_gradient():
    logprobs = logs(0.5, 0.1, 0.9).requires_grad_()
    advantages = torch.tensor([1.0, -2.0, 0.5]).double()
    found = grpo_loss(logprobs, logprobs.detach(), logprobs.detach(), advantages, beta=0.0, **CLIP)
    found.loss.sum().backward()
    torch.testing.assert_close(logprobs.grad, -advantages)


def test_the_gradient_of_the_penalty_is_the_gradient_of_the_exact_kl():
    """In expectation over all tokens, on-policy: sum_v p(v) d/dtheta [ratio k3] = d/dtheta KL."""
    torch.manual_seed(0)
    logits = torch.randn(1, 7, dtype=torch.float64, requires_grad=True)
    ref_logits = torch.randn(1, 7, dtype=torch.float64)
    (exact,) = torch.autograd.grad(kl_exact_double(logits, ref_logits).sum(), logits)
    logprobs, ref = torch.log_softmax(logits, -1)[0], torch.log_softmax(ref_logits, -1)[0]
    found = grpo_loss(logprobs, logprobs.detach(), ref, torch.zeros(7).double(), beta=1.0, **CLIP)
    (estimated,) = torch.autograd.grad((logprobs.detach().exp() * found.loss).sum(), logits)
    torch.testing.assert_close(estimated, exact)


def kl_exact_double(logits, ref_logits):
    logprobs, ref = torch.log_softmax(logits, -1), torch.log_softmax(ref_logits, -1)
    return (logprobs.exp() * (logprobs - ref)).sum(-1)


def test_zero_advantage_has_no_gradient():
    logprobs = logs(0.5, 0.1).requires_grad_()
    grpo_loss(
        logprobs, logs(0.4, 0.2), logs(0.3, 0.3), torch.zeros(2).double(), beta=0.0, **CLIP
    ).loss.sum().backward()
    assert (logprobs.grad == 0).all()


def test_exact_kl_by_hand_and_against_its_estimate():
    policy, reference = logs(0.5, 0.5), logs(0.25, 0.75)
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert kl_exact(policy[None], reference[None]).item() == pytest.approx(expected)
    assert (policy.exp() * kl_k3(policy, reference)).sum().item() == pytest.approx(expected)


logits = st.lists(st.floats(-30, 30, width=32), min_size=5, max_size=5)


@given(logits, logits)
def test_kl_is_never_negative_and_zero_to_itself(a, b):
    a, b = torch.tensor([a]), torch.tensor([b])
    assert kl_exact(a, b).item() >= 0
    assert kl_exact(a, a).item() == 0
    assert (kl_k3(a, b) >= -1e-6 * (a - b).abs()).all()  # rounding of the difference


@given(st.lists(st.floats(-5, 0), min_size=1, max_size=8), st.floats(0, 1))
def test_equal_rewards_give_no_policy_gradient_whatever_the_ratio(values, shift):
    logprobs = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    rollout = logprobs.detach() - shift
    found = grpo_loss(logprobs, rollout, rollout, torch.zeros(len(values)).double(), beta=0.0, **CLIP)
    found.loss.sum().backward()
    assert (logprobs.grad == 0).all()
