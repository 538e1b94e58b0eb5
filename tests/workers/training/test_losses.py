import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.training.support import make_config
from workers.training.base.divergences import kl_exact, kl_k1, kl_k3
from workers.training.losses import clipped, clipped_weight, policy_loss, sequence_ratio, value_loss


def logs(*probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def loss_of(logprobs, old, advantages, *, rollout=None, ref=None, lengths=None, **config):
    """The loss where, unless said otherwise, the policy before the update sampled and is the reference."""
    return policy_loss(
        logprobs,
        old,
        old if rollout is None else rollout,
        old if ref is None else ref,
        advantages,
        torch.tensor([len(logprobs)] if lengths is None else lengths),
        make_config("model", **{"beta": 0.0, **config}),
    )


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
    found = loss_of(policy, policy.detach() - math.log(ratio), numbers(advantage))
    assert found.loss.item() == pytest.approx(loss)
    assert found.ratio.item() == pytest.approx(ratio)
    assert found.is_clipped.item() is is_clipped
    found.loss.sum().backward()
    assert (policy.grad.item() == 0) is is_clipped


@pytest.mark.parametrize(
    ("ratio", "advantage", "weight", "is_clipped"),
    [
        pytest.param(1.0, 2.0, 1.0, False, id="on-policy"),
        pytest.param(7.0, 2.0, 5.0, True, id="good-and-far-likelier-is-bounded"),
        pytest.param(7.0, -2.0, 5.0, True, id="bad-and-far-likelier-is-bounded"),
        pytest.param(0.01, 2.0, 0.01, False, id="no-lower-bound-by-default"),
    ],
)
def test_cispo_by_hand_bounds_the_weight_and_never_the_gradient(ratio, advantage, weight, is_clipped):
    policy = logs(0.1).requires_grad_()
    found = loss_of(policy, policy.detach() - math.log(ratio), numbers(advantage), algorithm="cispo")
    assert found.loss.item() == pytest.approx(-weight * advantage * math.log(0.1))
    assert found.is_clipped.item() is is_clipped
    found.loss.sum().backward()
    assert policy.grad.item() == pytest.approx(-weight * advantage)


def test_sequence_ratio_by_hand():
    found = sequence_ratio(numbers(0.1, 0.3, -0.5), torch.tensor([2, 1]))
    torch.testing.assert_close(found, numbers(0.2, 0.2, -0.5).exp())


def test_gspo_by_hand_clips_whole_completions():
    """The first completion's mean ratio is outside, although its second token's own ratio is not."""
    logprobs = logs(0.5, 0.5, 0.5).requires_grad_()
    old = logprobs.detach() - numbers(0.2, 0.0, 0.0)
    found = loss_of(
        logprobs, old, numbers(1, 1, 1), lengths=[2, 1], algorithm="gspo", clip_low=0.05, clip_high=0.05
    )
    torch.testing.assert_close(found.loss.detach(), -numbers(1.05, 1.05, 1.0))
    assert found.is_clipped.tolist() == [True, True, False]
    found.loss.sum().backward()
    torch.testing.assert_close(logprobs.grad, -numbers(0, 0, 1))


small = st.floats(-2, 2)


@given(st.lists(st.tuples(small, small), min_size=1, max_size=6))
def test_gspo_is_the_clipped_surrogate_for_completions_of_one_token(rows):
    log_ratio, advantages = numbers(*[a for a, _ in rows]), numbers(*[b for _, b in rows])
    logprobs = torch.full((len(rows),), -1.0, dtype=torch.float64)
    shared = {"clip_low": 0.2, "clip_high": 0.3, "lengths": [1] * len(rows)}
    by_sequence = loss_of(logprobs, logprobs - log_ratio, advantages, algorithm="gspo", **shared)
    by_token = loss_of(logprobs, logprobs - log_ratio, advantages, **shared)
    torch.testing.assert_close(by_sequence.loss, by_token.loss)
    assert by_sequence.is_clipped.tolist() == by_token.is_clipped.tolist()


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6), st.randoms())
def test_the_ratio_of_a_completion_does_not_depend_on_the_order_of_its_tokens(values, random):
    moved = random.sample(values, len(values))
    lengths = torch.tensor([len(values)])
    assert sequence_ratio(numbers(*moved), lengths)[0].item() == pytest.approx(
        sequence_ratio(numbers(*values), lengths)[0].item()
    )


def test_tokens_that_another_policy_sampled_are_weighted_up_to_the_cap():
    old = logs(0.4, 0.4, 0.4)
    found = loss_of(old, old, numbers(1, 1, 1), rollout=logs(0.8, 0.4, 0.1), importance_cap=2.0)
    torch.testing.assert_close(found.loss, -numbers(0.5, 1.0, 2.0))
    assert found.is_truncated.tolist() == [False, False, True]


def test_the_weight_of_the_sampling_policy_multiplies_the_penalty_and_has_no_gradient():
    logprobs = logs(0.4).requires_grad_()
    plain = loss_of(logprobs, logprobs.detach(), numbers(1), ref=logs(0.1), beta=0.3)
    weighted = loss_of(logprobs, logprobs.detach(), numbers(1), ref=logs(0.1), rollout=logs(0.5), beta=0.3)
    torch.testing.assert_close(weighted.loss, 0.8 * plain.loss)
    (expected,) = torch.autograd.grad(plain.loss.sum(), logprobs)
    (found,) = torch.autograd.grad(weighted.loss.sum(), logprobs)
    torch.testing.assert_close(found, 0.8 * expected)


def test_kl_penalty_by_hand():
    policy, old, reference = logs(0.5), logs(0.4), logs(0.25)
    found = loss_of(policy, old, numbers(0), ref=reference, beta=0.1)
    k3 = 0.5 - math.log(0.5) - 1
    assert found.kl.item() == pytest.approx(k3)
    assert found.loss.item() == pytest.approx(0.1 * 1.25 * k3)


@pytest.mark.parametrize("algorithm", ["rloo", "reinforce_pp", "ppo"])
def test_a_penalty_that_is_in_the_reward_is_not_in_the_loss_too(algorithm):
    policy, reference = logs(0.5), logs(0.25)
    found = loss_of(policy, policy, numbers(1), ref=reference, beta=0.1, algorithm=algorithm)
    assert found.loss.item() == pytest.approx(-1)
    assert found.kl.item() > 0


@pytest.mark.parametrize("algorithm", ["grpo", "gspo", "cispo"])
def test_the_gradient_at_ratio_one_is_the_plain_policy_gradient(algorithm):
    logprobs = logs(0.5, 0.1, 0.9).requires_grad_()
    advantages = numbers(1.0, -2.0, -2.0)
    found = loss_of(logprobs, logprobs.detach(), advantages, algorithm=algorithm, lengths=[1, 2])
    found.loss.sum().backward()
    torch.testing.assert_close(logprobs.grad, -advantages)


@pytest.mark.parametrize("algorithm", ["grpo", "cispo"])
def test_the_gradient_of_the_penalty_is_the_gradient_of_the_exact_kl(algorithm):
    """In expectation over all tokens, on-policy: sum_v p(v) d/dtheta [ratio k3] = d/dtheta KL."""
    torch.manual_seed(0)
    logits = torch.randn(1, 7, dtype=torch.float64, requires_grad=True)
    ref_logits = torch.randn(1, 7, dtype=torch.float64)
    (exact,) = torch.autograd.grad(kl_exact_double(logits, ref_logits).sum(), logits)
    logprobs, ref = torch.log_softmax(logits, -1)[0], torch.log_softmax(ref_logits, -1)[0]
    found = loss_of(
        logprobs, logprobs.detach(), torch.zeros(7).double(), ref=ref, beta=1.0, algorithm=algorithm
    )
    (estimated,) = torch.autograd.grad((logprobs.detach().exp() * found.loss).sum(), logits)
    torch.testing.assert_close(estimated, exact)


def test_the_policy_gradient_of_the_penalty_in_the_reward_is_the_gradient_of_the_exact_kl():
    """In expectation: sum_v p(v) k1(v) d/dtheta log p(v) = d/dtheta KL."""
    torch.manual_seed(0)
    logits = torch.randn(1, 7, dtype=torch.float64, requires_grad=True)
    ref_logits = torch.randn(1, 7, dtype=torch.float64)
    (exact,) = torch.autograd.grad(kl_exact_double(logits, ref_logits).sum(), logits)
    logprobs, ref = torch.log_softmax(logits, -1)[0], torch.log_softmax(ref_logits, -1)[0]
    cost = kl_k1(logprobs, ref)
    assert not cost.requires_grad
    (estimated,) = torch.autograd.grad((logprobs.detach().exp() * cost * logprobs).sum(), logits)
    torch.testing.assert_close(estimated, exact)


def kl_exact_double(logits, ref_logits):
    logprobs, ref = torch.log_softmax(logits, -1), torch.log_softmax(ref_logits, -1)
    return (logprobs.exp() * (logprobs - ref)).sum(-1)


def test_exact_kl_by_hand_and_against_its_estimates():
    policy, reference = logs(0.5, 0.5), logs(0.25, 0.75)
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert kl_exact(policy[None], reference[None]).item() == pytest.approx(expected)
    assert (policy.exp() * kl_k3(policy, reference)).sum().item() == pytest.approx(expected)
    assert (policy.exp() * kl_k1(policy, reference)).sum().item() == pytest.approx(expected)


logits = st.lists(st.floats(-30, 30, width=32), min_size=5, max_size=5)


@given(logits, logits)
def test_kl_is_never_negative_and_zero_to_itself(a, b):
    a, b = torch.tensor([a]), torch.tensor([b])
    assert kl_exact(a, b).item() >= 0
    assert kl_exact(a, a).item() == 0
    assert (kl_k3(a, b) >= -1e-6 * (a - b).abs()).all()  # rounding of the difference


@pytest.mark.parametrize("algorithm", ["grpo", "gspo", "cispo"])
@given(st.lists(st.floats(-5, 0), min_size=1, max_size=8), st.floats(0, 1))
def test_without_an_advantage_there_is_no_gradient_whatever_the_ratio(algorithm, values, shift):
    logprobs = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    found = loss_of(
        logprobs, logprobs.detach() - shift, torch.zeros(len(values)).double(), algorithm=algorithm
    )
    found.loss.sum().backward()
    assert (logprobs.grad == 0).all()


@given(st.floats(0, 3), st.floats(-3, 3), st.floats(0.1, 10))
def test_surrogates_grow_with_the_advantage(ratio, advantage, factor):
    args = numbers(ratio), numbers(advantage)
    more = numbers(ratio), numbers(factor * advantage)
    torch.testing.assert_close(clipped(*more, 0.8, 1.2).loss, factor * clipped(*args, 0.8, 1.2).loss)
    logprobs = numbers(-1.5)
    torch.testing.assert_close(
        clipped_weight(logprobs, *more, 0.0, 5.0).loss,
        factor * clipped_weight(logprobs, *args, 0.0, 5.0).loss,
    )


@pytest.mark.parametrize(
    ("value", "loss", "gradient"),
    [
        pytest.param(0.5, 0.125, -0.5, id="near-its-old-one-counts-fully"),
        pytest.param(0.9, 0.5 * 0.4**2, 0.0, id="moved-far-towards-the-return-no-longer"),
        pytest.param(0.1, 0.5 * 0.9**2, -0.9, id="moved-far-from-it-counts-fully"),
    ],
)
def test_value_loss_by_hand(value, loss, gradient):
    """The old value is 0.4, the return 1, and values may move by 0.2."""
    values = numbers(value).requires_grad_()
    found = value_loss(values, numbers(0.4), numbers(1.0), 0.2)
    assert found.item() == pytest.approx(loss)
    found.backward()
    assert values.grad.item() == pytest.approx(gradient)
