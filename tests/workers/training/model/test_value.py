"""The value head of PPO and what is made of its values."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.training.support import make_config
from workers.training.advantages import returns_to_go
from workers.training.model.policy import Policy
from workers.training.model.value import ValueHead, explained_variance, gae

CPU = torch.device("cpu")


def test_gae_by_hand():
    rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.4, 0.2]])
    last = 1 - 0.2
    middle = (0.2 - 0.4) + 0.5 * last
    first = (0.4 - 0.5) + 0.5 * middle
    torch.testing.assert_close(gae(rewards, values, 0.5), torch.tensor([[first, middle, last]]))


numbers = st.floats(-3, 3)
tokens = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6)


def columns(rows):
    return tuple(torch.tensor([[row[i] for row in rows]], dtype=torch.float64) for i in (0, 1))


@given(tokens)
def test_gae_with_lambda_one_is_the_return_minus_the_value(rows):
    rewards, values = columns(rows)
    torch.testing.assert_close(gae(rewards, values, 1.0)[0], returns_to_go(rewards[0]) - values[0])


@given(tokens)
def test_gae_with_lambda_zero_looks_one_token_ahead(rows):
    rewards, values = columns(rows)
    after = torch.cat([values[0, 1:], torch.zeros(1).double()])
    torch.testing.assert_close(gae(rewards, values, 0.0)[0], rewards[0] + after - values[0])


@given(tokens, st.floats(0, 1), st.integers(1, 4))
def test_gae_does_not_see_padding(rows, decay, padding):
    rewards, values = columns(rows)
    room = torch.zeros(1, padding, dtype=torch.float64)
    padded = gae(torch.cat([rewards, room], 1), torch.cat([values, room], 1), decay)
    torch.testing.assert_close(padded[:, : len(rows)], gae(rewards, values, decay))
    assert not padded[:, len(rows) :].any()


def test_right_values_leave_no_advantage():
    rewards = torch.tensor([[-0.1, -0.2, 1.0]])
    assert gae(rewards, returns_to_go(rewards[0])[None], 0.7).abs().max() < 1e-6


def test_explained_variance_by_hand():
    returns = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert explained_variance(returns, returns) == 1
    assert explained_variance(returns, torch.full((4,), 1.5)) == 0
    assert explained_variance(returns, returns.flip(0)) == pytest.approx(1 - 4)
    assert explained_variance(returns, 0.5 * returns) == pytest.approx(0.75)
    assert explained_variance(torch.ones(4), returns) is None


def test_a_fresh_head_promises_nothing_and_learns_from_states_without_changing_them():
    head = ValueHead(8, CPU)
    states = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    values = head(states)
    assert values.tolist() == [0.0] * 5
    (values - torch.arange(5)).square().sum().backward()
    assert states.grad is None
    assert all(weight.grad.abs().sum() > 0 for weight in head.parameters())


@pytest.mark.parametrize("width", [16, 4096])
def test_an_update_moves_a_value_by_at_most_its_rate_whatever_the_width(width):
    torch.manual_seed(0)
    head, states = ValueHead(width, CPU), 10 * torch.randn(20, width) + 3
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.1, weight_decay=0.0)
    head(states)[3].backward()
    optimizer.step()
    moved = head(states).abs()
    assert 0.1 < moved[3] <= 0.2  # half of it the bias's
    assert moved.max() <= 0.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_fp32(dtype):
    assert ValueHead(8, CPU)(torch.ones(2, 8, dtype=dtype)).dtype == torch.float32


def test_a_head_can_fit_returns_that_are_linear_in_the_states():
    torch.manual_seed(0)
    states = torch.randn(400, 16)
    returns = 0.5 * states[:, 0] - 0.3 * states[:, 3] + 0.2
    head = ValueHead(16, CPU)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.1, weight_decay=0.0)
    for _ in range(200):
        optimizer.zero_grad()
        (head(states) - returns).square().mean().backward()
        optimizer.step()
    assert explained_variance(returns, head(states).detach()) > 0.9


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_only_ppo_has_a_head_and_it_is_a_trained_weight(sharp, adapter):
    plain = Policy.load(make_config(sharp, adapter=adapter))
    assert plain.value_head is None
    policy = Policy.load(make_config(sharp, adapter=adapter, algorithm="ppo"))
    new = policy.trained().keys() - plain.trained().keys()
    assert new == {"value_head.linear.weight", "value_head.linear.bias"}
    for name, weight in plain.trained().items():
        assert weight.equal(policy.trained()[name])


def test_checkpoints_hold_no_head_and_states_do(sharp, tmp_path):
    policy = Policy.load(make_config(sharp, algorithm="ppo"))
    for save in (policy.save_model, policy.save_adapter):
        folder = tmp_path / save.__name__
        folder.mkdir()
        save(folder)
        names = {name for file in folder.glob("*.safetensors") for name in tensor_names(file)}
        assert names
        assert not any("value" in name.split(".")[0] or "linear" in name for name in names)
    saved = {name: torch.ones_like(weight) for name, weight in policy.trained().items()}
    policy.load_trained(saved)
    assert policy.value_head.linear.weight.eq(1).all()


def tensor_names(file):
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return list(opened.keys())
