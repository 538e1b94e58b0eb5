import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.training.advantages import STD_FLOOR, group_advantages, groups_with_spread


def advantages(rewards, graded=None, *, scale=False):
    rewards = torch.tensor(rewards, dtype=torch.float64)
    graded = torch.ones_like(rewards, dtype=torch.bool) if graded is None else torch.tensor(graded).bool()
    return group_advantages(rewards, graded, scale_by_std=scale)


@pytest.mark.parametrize(
    ("rewards", "graded", "expected"),
    [
        pytest.param([1, 0, 0, 1], [1, 1, 1, 1], [0.5, -0.5, -0.5, 0.5], id="half-right"),
        pytest.param([1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0], id="all-right-teaches-nothing"),
        pytest.param([1, 0, 9, 0], [1, 1, 0, 0], [0.5, -0.5, 0, 0], id="ungraded-left-out"),
        pytest.param([1, 0, 9, 0], [1, 0, 0, 0], [0, 0, 0, 0], id="one-grade-compares-with-nothing"),
        pytest.param([5, 5, 5, 5], [0, 0, 0, 0], [0, 0, 0, 0], id="nothing-graded"),
        pytest.param([0.3, 0.3 + 1e-9, 0.3, 0.3], [1, 1, 1, 1], [0, 0, 0, 0], id="rounding-is-no-spread"),
    ],
)
def test_group_advantages_by_hand(rewards, graded, expected):
    torch.testing.assert_close(advantages([rewards], [graded]), torch.tensor([expected]).float())


def test_scaling_divides_by_the_unbiased_standard_deviation():
    scaled = advantages([[1, 0, 0, 1]], scale=True)
    torch.testing.assert_close(scaled, torch.tensor([[0.5, -0.5, -0.5, 0.5]]) / (1 / 3) ** 0.5)


def test_noise_in_one_group_is_not_blown_up_to_the_size_of_a_real_difference():
    noisy, real = advantages([[0.500, 0.501, 0.500, 0.501], [0, 1, 0, 1]], scale=True).abs().amax(1)
    assert noisy < 0.02
    assert real > 0.8
    pooled = ((1 / 3 * 1e-6 + 1 / 3) / 2) ** 0.5
    assert noisy == pytest.approx(0.0005 / (STD_FLOOR * pooled), rel=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_scaled_advantages_do_not_depend_on_the_unit_of_the_reward(scale):
    rewards = torch.tensor([[0.0, 1, 1, 3], [2, 2, 0, 1]], dtype=torch.float64)
    graded = torch.ones(2, 4, dtype=torch.bool)
    plain = group_advantages(rewards, graded, scale_by_std=True)
    torch.testing.assert_close(group_advantages(rewards * scale, graded, scale_by_std=True), plain)


finite = st.floats(-1e6, 1e6, allow_nan=False)


@given(
    st.lists(st.lists(st.tuples(finite, st.booleans()), min_size=4, max_size=4), min_size=1, max_size=5),
    st.booleans(),
)
def test_advantages_sum_to_zero_are_finite_and_skip_ungraded(groups, scale):
    rewards = torch.tensor([[reward for reward, _ in group] for group in groups], dtype=torch.float64)
    graded = torch.tensor([[is_graded for _, is_graded in group] for group in groups])
    found = group_advantages(rewards, graded, scale_by_std=scale)
    assert found.isfinite().all()
    assert (found[~graded] == 0).all()
    assert (found[~groups_with_spread(rewards, graded)] == 0).all()
    size = found.abs().amax(1).clamp(min=1e-9)
    assert (found.sum(1).abs() <= 1e-5 * size + 1e-30).all()


@given(st.lists(finite, min_size=2, max_size=8), st.randoms())
def test_advantages_follow_their_completions_in_any_order(rewards, random):
    order = list(range(len(rewards)))
    random.shuffle(order)
    found = advantages([rewards], scale=True)[0]
    moved = advantages([[rewards[i] for i in order]], scale=True)[0]
    torch.testing.assert_close(moved, found[order])
