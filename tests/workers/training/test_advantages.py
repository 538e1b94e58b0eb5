import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.training.support import group_of, make_config
from workers.training.advantages import (
    STD_FLOOR,
    TokenTargets,
    compared_completions,
    group_advantages,
    groups_with_spread,
    leave_one_out_advantages,
    normalised,
    returns_to_go,
    token_targets,
    token_weights,
    without_noise,
)
from workers.training.base.types import Prompt
from workers.training.rewards import Rewards


def rewards_of(rewards, graded=None):
    rewards = torch.tensor(rewards, dtype=torch.float64)
    return Rewards(
        rewards, torch.ones_like(rewards).bool() if graded is None else torch.tensor(graded).bool()
    )


def advantages(rewards, graded=None, *, scale=False):
    return group_advantages(*rewards_of(rewards, graded), scale_by_std=scale)


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


@pytest.mark.parametrize(
    ("rewards", "graded", "expected"),
    [
        pytest.param([1, 0, 0, 1], [1, 1, 1, 1], [2 / 3, -2 / 3, -2 / 3, 2 / 3], id="half-right"),
        pytest.param([3, 0, 0, 0], [1, 1, 1, 1], [3, -1, -1, -1], id="one-right"),
        pytest.param([1, 0, 9, 0], [1, 1, 0, 0], [1, -1, 0, 0], id="ungraded-is-no-baseline"),
        pytest.param([1, 0, 9, 0], [1, 0, 0, 0], [0, 0, 0, 0], id="one-grade-compares-with-nothing"),
    ],
)
def test_leave_one_out_advantages_by_hand(rewards, graded, expected):
    found = leave_one_out_advantages(*rewards_of([rewards], [graded]))
    torch.testing.assert_close(found, torch.tensor([expected]).float())


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
some_groups = st.lists(
    st.lists(st.tuples(finite, st.booleans()), min_size=4, max_size=4), min_size=1, max_size=5
)


def split(groups):
    rewards = torch.tensor([[reward for reward, _ in group] for group in groups], dtype=torch.float64)
    return rewards, torch.tensor([[is_graded for _, is_graded in group] for group in groups])


@given(some_groups, st.booleans())
def test_advantages_sum_to_zero_are_finite_and_skip_ungraded(groups, scale):
    rewards, graded = split(groups)
    found = group_advantages(rewards, graded, scale_by_std=scale)
    assert found.isfinite().all()
    assert (found[~graded] == 0).all()
    assert (found[~groups_with_spread(rewards, graded)] == 0).all()
    size = found.abs().amax(1).clamp(min=1e-9)
    assert (found.sum(1).abs() <= 1e-5 * size + 1e-30).all()


@given(some_groups)
def test_leave_one_out_is_the_distance_to_the_mean_times_n_over_n_minus_one(groups):
    rewards, graded = split(groups)
    n = graded.sum(1, keepdim=True)
    centred = group_advantages(rewards, graded, scale_by_std=False)
    size = float(rewards.abs().max()) + 1e-9
    found = leave_one_out_advantages(rewards, graded)
    torch.testing.assert_close(found, centred * n / (n - 1).clamp(min=1), atol=1e-6 * size, rtol=1e-5)


@pytest.mark.parametrize(
    "function", [leave_one_out_advantages, lambda r, g: group_advantages(r, g, scale_by_std=True)]
)
@given(some_groups, finite)
def test_the_value_of_an_ungraded_completion_never_matters(function, groups, other):
    rewards, graded = split(groups)
    changed = torch.where(graded, rewards, other)
    torch.testing.assert_close(function(changed, graded), function(rewards, graded), rtol=0, atol=0)


@pytest.mark.parametrize(
    "function", [leave_one_out_advantages, lambda r, g: group_advantages(r, g, scale_by_std=True)]
)
@given(st.lists(finite, min_size=2, max_size=8), st.randoms())
def test_advantages_follow_their_completions_in_any_order(function, rewards, random):
    order = list(range(len(rewards)))
    random.shuffle(order)
    found = function(*rewards_of([rewards]))[0]
    moved = function(*rewards_of([[rewards[i] for i in order]]))[0]
    size = max(map(abs, rewards)) + 1
    torch.testing.assert_close(moved, found[order], atol=1e-6 * size, rtol=1e-5)


def test_returns_to_go_by_hand():
    assert returns_to_go(torch.tensor([1.0, 2.0, 4.0])).tolist() == [7, 6, 4]


@given(st.lists(finite, min_size=1, max_size=9), st.sampled_from([1e-6, 1.0, 1e6]), finite)
def test_normalised_numbers_have_mean_zero_and_deviation_one_whatever_their_unit(values, unit, shift):
    values = torch.tensor(values, dtype=torch.float64)
    found = normalised(values, scale=True)
    assert found.isfinite().all()
    assert found.mean().abs() < 1e-6
    if found.any():
        assert found.std().item() == pytest.approx(1)
        torch.testing.assert_close(normalised(values * unit, scale=True), found, atol=1e-8, rtol=1e-6)
    else:
        assert values.max() - values.min() <= 2.1e-6 * values.abs().max()


def test_rounding_is_not_blown_up_to_deviation_one():
    almost_equal = torch.tensor([0.3, 0.3 + 1e-9, 0.3], dtype=torch.float64)
    assert almost_equal.std() > 0
    assert not normalised(almost_equal, scale=True).any()
    assert normalised(torch.tensor([0.3, 0.301, 0.3]), scale=True).any()


# Which completions are compared, and with what.

ONE_EACH = [[1.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("algorithm", "beta", "rewards", "expected"),
    [
        pytest.param("grpo", 0.1, ONE_EACH, [[1, 1], [0, 0]], id="a-group-without-spread-is-left-out"),
        pytest.param("rloo", 0.0, ONE_EACH, [[1, 1], [0, 0]], id="leave-one-out-too"),
        pytest.param("rloo", 0.1, ONE_EACH, [[1, 1], [1, 1]], id="unless-its-kl-may-differ"),
        pytest.param("reinforce_pp", 0.0, ONE_EACH, [[1, 1], [1, 1]], id="the-step-is-the-baseline"),
        pytest.param("ppo", 0.1, ONE_EACH, [[1, 1], [1, 1]], id="values-are"),
        pytest.param("reinforce_pp", 0.1, [[1.0, 1.0]] * 2, [[0, 0]] * 2, id="a-step-without-spread"),
        pytest.param("ppo", 0.1, [[1.0, 1.0]] * 2, [[0, 0]] * 2, id="nothing-for-values-either"),
    ],
)
def test_what_is_learnt_from(algorithm, beta, rewards, expected):
    config = make_config("model", algorithm=algorithm, beta=beta)
    assert compared_completions(rewards_of(rewards), config).int().tolist() == expected


@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "reinforce_pp", "ppo"])
@pytest.mark.parametrize(
    ("reward_range", "spread", "is_noise"),
    [
        pytest.param((0.0, 1.0), 1e-5, True, id="jitter"),
        pytest.param((0.0, 1.0), 0.9e-3, True, id="below-a-thousandth"),
        pytest.param((0.0, 1.0), 1.1e-3, False, id="above-a-thousandth"),
        pytest.param((-5.0, 5.0), 9e-3, True, id="of-a-wide-range"),
        pytest.param((0.0, 1e-4), 1e-5, False, id="of-a-narrow-range"),
        pytest.param(None, 1e-5, True, id="of-an-unknown-range"),
        pytest.param(None, 0.1, False, id="much-for-an-unknown-range"),
    ],
)
def test_rewards_closer_together_than_a_thousandth_of_the_range_are_equal(
    algorithm, reward_range, spread, is_noise
):
    config = make_config("model", algorithm=algorithm, beta=0.0, reward_range=reward_range)
    rewards = rewards_of([[0.3, 0.3 + spread], [0.3, 0.3]])
    assert bool(compared_completions(rewards, config).any()) != is_noise
    levelled = without_noise(rewards, config)
    assert levelled.values.tolist() == [[0.3, 0.3 if is_noise else 0.3 + spread], [0.3, 0.3]]


def test_making_noise_equal_leaves_ungraded_completions_and_groups_with_spread_alone():
    rewards = rewards_of([[0.5, 0.50001, 9.0], [0.0, 1.0, 0.00001]], [[1, 1, 0], [1, 1, 1]])
    found = without_noise(rewards, make_config("model"))
    assert found.values.tolist() == [[0.5, 0.5, 9.0], [0.0, 1.0, 0.00001]]


@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "reinforce_pp", "ppo"])
@given(some_groups, finite)
def test_what_is_learnt_from_is_graded_and_does_not_depend_on_what_is_not(algorithm, groups, other):
    config = make_config("model", algorithm=algorithm)
    rewards, graded = split(groups)
    found = compared_completions(Rewards(rewards, graded), config)
    assert not found[~graded].any()
    changed = compared_completions(Rewards(torch.where(graded, rewards, other), graded), config)
    assert changed.equal(found)


def targets(algorithm, rewards, kl, values=None, graded=None, **config):
    found = rewards_of(rewards, graded)
    return token_targets(
        found,
        found.graded,
        [torch.tensor(part, dtype=torch.float64) for part in kl],
        None if values is None else [torch.tensor(part) for part in values],
        make_config("model", algorithm=algorithm, **config),
    )


def close(found: TokenTargets, *expected):
    for part, numbers in zip(found.advantages, expected, strict=True):
        torch.testing.assert_close(part.double(), torch.tensor(numbers).double(), atol=1e-6, rtol=1e-5)


def test_a_completions_advantage_is_given_to_each_of_its_tokens():
    found = targets("dr_grpo", [[1.0, 0.0]], [[0, 0, 0], [0]])
    close(found, [0.5, 0.5, 0.5], [-0.5])


def test_leave_one_out_by_hand_with_the_kl_of_whole_completions_in_the_rewards():
    """Rewards 1 - 0.1 * 3 and 0 - 0.1 * -1."""
    found = targets("rloo", [[1.0, 0.0]], [[1, 2], [-1]], beta=0.1)
    close(found, [0.6, 0.6], [-0.6])


def test_leave_one_out_learns_from_the_kl_alone():
    found = targets("rloo", [[1.0, 1.0]], [[1.0, 2.0], [0.0]], beta=0.1)
    close(found, [-0.3, -0.3], [0.3])
    assert found.teach_anything(0.0)


def test_nothing_to_compare_teaches_nothing():
    found = targets("rloo", [[1.0, 1.0]], [[0.0, 0.0], [0.0]], beta=0.1)
    assert not found.teach_anything(0.0)
    assert found.teach_anything(0.1)  # with a KL term in the loss


def test_leave_one_out_scaled_has_the_deviation_of_the_step():
    found = targets("rloo", [[1.0, 0.0], [3.0, 1.0]], [[0.0]] * 4, beta=0.0, scale_advantage=True)
    values = torch.cat(found.advantages)
    assert values.std().item() == pytest.approx(1)
    assert (values[2] / values[0]).item() == pytest.approx(2)


def test_reinforce_pp_by_hand():
    """Returns to go: 1 - 0.1 * (1 + 2), 1 - 0.1 * 2 and 0; mean 0.5."""
    found = targets("reinforce_pp", [[1.0, 0.0]], [[1, 2], [0]], beta=0.1)
    returns = torch.tensor([0.7, 0.8, 0.0])
    expected = ((returns - 0.5) / returns.std()).tolist()
    close(found, expected[:2], expected[2:])


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 4)), min_size=2, max_size=6),
    st.sampled_from([1e-3, 1.0, 1e3]),
    st.floats(-5, 5),
)
def test_step_baselines_do_not_depend_on_unit_and_origin_of_the_reward(rows, unit, shift):
    rewards = torch.tensor([[reward for reward, _ in rows]])
    kl = [[0.0] * n for _, n in rows]
    moved = (unit * (rewards.double() + shift)).tolist()
    values = [[0.1 * t for t in range(n)] for _, n in rows]
    if float(rewards.max() - rewards.min()) < 1e-2:
        return
    for algorithm in ("reinforce_pp", "ppo"):
        plain = targets(algorithm, rewards.tolist(), kl, values, beta=0.0)
        other = targets(algorithm, moved, kl, values, beta=0.0)
        torch.testing.assert_close(
            torch.cat(other.advantages), torch.cat(plain.advantages), atol=2e-4, rtol=1e-3
        )


@pytest.mark.parametrize("algorithm", ["reinforce_pp", "ppo"])
def test_the_tokens_of_a_step_have_mean_zero_and_deviation_one(algorithm):
    kl = [[0.1, 0.5, 0.0], [0.2], [0.0, 0.3]]
    found = targets(algorithm, [[1.0, 0.0, 0.5]], kl, values=kl, beta=0.1)
    together = torch.cat(found.advantages)
    assert together.mean().abs() < 1e-6
    assert together.std().item() == pytest.approx(1, rel=1e-5)


def test_ppo_by_hand():
    """Rewards 1, 0 are +-1/sqrt 2 deviations from their mean; lambda 0.5, no KL, advantages not scaled."""
    values = [[0.1, 0.3], [0.2]]
    found = targets(
        "ppo", [[1.0, 0.0]], [[0, 0], [0]], values, beta=0.0, gae_lambda=0.5, scale_advantage=False
    )
    half = 0.5**0.5
    last = half - 0.3
    raw = [0.3 - 0.1 + 0.5 * last, last, -half - 0.2]
    mean = sum(raw) / 3
    close(found, [raw[0] - mean, raw[1] - mean], [raw[2] - mean])
    assert found.returns is not None
    torch.testing.assert_close(found.returns[0], torch.tensor([raw[0] + 0.1, raw[1] + 0.3]))
    torch.testing.assert_close(found.returns[1], torch.tensor([-half]))


def test_ppos_kl_keeps_its_proportion_to_the_reward():
    """Rewards with a deviation of 10 / sqrt 2: each token costs beta k1 of that."""
    found = targets("ppo", [[10.0, 0.0]], [[1.0, 2.0], [0.0]], [[0.0, 0.0], [0.0]], beta=0.5, gae_lambda=1.0)
    std = 10 / 2**0.5
    assert found.returns is not None
    expected = torch.tensor([5 - 0.5 * 3, 5 - 0.5 * 2]) / std
    torch.testing.assert_close(found.returns[0], expected)


# What tokens count.


def weights(aggregation, counted, forwarded=None, trained=None):
    """Two groups of completions of 1, 3 and 2, 2 tokens; at most 6."""
    prompt = Prompt(0, {}, (1,))
    groups = [group_of(prompt, (1,), (1, 2, 3)), group_of(prompt, (1, 2), (3, 4))]
    counted = torch.tensor(counted).bool()
    forwarded = counted if forwarded is None else torch.tensor(forwarded).bool()
    trained = forwarded if trained is None else torch.tensor(trained).bool()
    config = make_config("model", aggregation=aggregation)
    return [part.tolist() for part in token_weights(groups, counted, forwarded, trained, config)]


ALL = [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("aggregation", "each"),
    [
        pytest.param("token", [1 / 8, 1 / 8, 1 / 8, 1 / 8], id="mean-over-tokens"),
        pytest.param("sequence", [1 / 4, 1 / 12, 1 / 8, 1 / 8], id="mean-over-completions-of-their-means"),
        pytest.param("constant", [1 / 24, 1 / 24, 1 / 24, 1 / 24], id="sum-over-a-constant"),
    ],
)
def test_weights_of_tokens_by_hand(aggregation, each):
    found = weights(aggregation, ALL)
    assert [len(part) for part in found] == [1, 3, 2, 2]
    for part, expected in zip(found, each, strict=True):
        assert part == pytest.approx([expected] * len(part))


def test_completions_without_a_gradient_count_in_the_divisor():
    assert weights("token", ALL, forwarded=[[1, 1], [0, 0]]) == [[1 / 8], [1 / 8] * 3]


def test_completions_that_are_run_but_not_trained_weigh_nothing():
    found = weights("sequence", [[1, 0], [1, 1]], forwarded=ALL, trained=[[1, 0], [1, 1]])
    assert found == [
        pytest.approx([1 / 3]),
        [0, 0, 0],
        pytest.approx([1 / 6] * 2),
        pytest.approx([1 / 6] * 2),
    ]
