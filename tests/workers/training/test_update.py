"""One step's update by every algorithm: what changes the gradient, and what must not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch

from methods.algorithms import RECIPES, AlgorithmName
from tests.workers.training.conftest import moved
from tests.workers.training.passes.test_forward import make_completions, plain_logprobs
from tests.workers.training.support import make_config
from workers.training import update
from workers.training.advantages import compared_completions
from workers.training.base.types import Group, Prompt
from workers.training.learnable import held_completions, overlong_punishment
from workers.training.measures.kl_probe import probe_kl
from workers.training.model.policy import Policy
from workers.training.passes.packing import make_batches
from workers.training.rewards import Rewards
from workers.training.sampling.rollout import Sampling, sample_groups

ALGORITHMS = get_args(AlgorithmName)
LIMIT = 8


def test_every_algorithm_has_a_recipe_whose_defaults_a_config_takes_and_a_run_may_change():
    assert set(RECIPES) == set(ALGORITHMS)
    for name, recipe in RECIPES.items():
        config = make_config("model", algorithm=name)
        for field, value in recipe.defaults.items():
            assert getattr(config, field) == value
        assert make_config("model", algorithm=name, beta=0.123).beta == 0.123
        assert config.recipe is recipe


def made_up_config(model, algorithm="grpo", **changes):
    """Nothing clipped away by the norm, so that gradients can be compared."""
    fields: dict[str, Any] = {"max_completion_tokens": LIMIT, "max_grad_norm": 1e12, "beta": 0.1}
    return make_config(model, **{"algorithm": algorithm, **fields, **changes})


def make_groups(policy, seed=1, n_prompts=3, group=4):
    """Groups as this policy would have sampled them."""
    packed = make_completions(seed=seed, n_prompts=n_prompts, group=group, longest=LIMIT)
    groups = []
    for i in range(n_prompts):
        members = packed[i * group : (i + 1) * group]
        completions = [
            replace(one.completion, logprobs=tuple(plain_logprobs(policy.model, one).tolist()))
            for one in members
        ]
        groups.append(Group(members[0].prompt, tuple(completions)))
    return groups


def make_rewards(seed=1, n_prompts=3, group=4):
    values = torch.rand(n_prompts, group, generator=torch.Generator().manual_seed(seed)).double()
    return Rewards(values, torch.ones(n_prompts, group).bool())


def gradients_of(policy, groups, rewards, config):
    """The gradient of each of the step's updates, and the metrics. The weights stay."""
    found = []
    optimizer = update.make_optimizer(policy, config)
    weights = policy.trained()
    optimizer.step = lambda: found.append({name: w.grad.clone() for name, w in weights.items()})
    stats = update.update_policy(policy, optimizer, groups, rewards, config, step=1)
    return found, stats


@pytest.fixture(scope="module", params=ALGORITHMS)
def case(request, sharp):
    """A policy that has moved (and whose value head has), groups, rewards and the gradient that follows."""
    config = made_up_config(sharp, request.param, async_steps=0)
    policy = moved(Policy.load(config))
    groups, rewards = make_groups(policy), make_rewards()
    (gradient, *_), stats = gradients_of(policy, groups, rewards, config)
    return config, policy, groups, rewards, gradient, stats


def assert_same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, **{"atol": 1e-6, "rtol": 1e-4, **tolerance})


def test_there_is_a_gradient(case):
    *_, gradient, stats = case
    assert sum(float(g.norm()) for g in gradient.values()) > 1e-3
    assert stats.is_finite


def test_micro_batches_have_the_gradient_of_the_whole(case):
    config, policy, groups, rewards, gradient, _ = case
    completions = update.find_learnable(groups, rewards, config).completions
    assert len(make_batches(completions, 64, policy.device)) > 1
    before, policy.passes.most = policy.passes.most, 64
    (found, *_), _ = gradients_of(policy, groups, rewards, config)
    policy.passes.most = before
    assert_same(found, gradient)


def test_the_order_of_prompts_and_completions_does_not_matter(case):
    config, policy, groups, rewards, gradient, _ = case
    order = [2, 0, 3, 1]
    turned = [Group(group.prompt, tuple(group.completions[i] for i in order)) for group in reversed(groups)]
    values = rewards.values.flip(0)[:, order]
    (found, *_), _ = gradients_of(policy, turned, Rewards(values, rewards.graded), config)
    assert_same(found, gradient)


def test_what_is_given_after_the_last_sampled_token_changes_nothing(case):
    config, policy, groups, rewards, gradient, _ = case
    (found, *_), _ = gradients_of(
        policy, [followed_by_a_given_tail(group) for group in groups], rewards, config
    )
    assert_same(found, gradient)


def followed_by_a_given_tail(group):
    longer = [
        replace(
            one,
            tokens=(*one.tokens, 5, 6),
            logprobs=(*one.logprobs, 0.0, 0.0),
            given=(False,) * len(one.tokens) + (True, True),
        )
        for one in group.completions
    ]
    return replace(group, completions=tuple(longer))


def test_a_completion_without_a_sampled_token_teaches_nothing(case):
    config, policy, groups, rewards, *_ = case
    first, *others = groups
    unsampled = replace(first.completions[0], given=(True,) * len(first.completions[0].tokens))
    changed = [replace(first, completions=(unsampled, *first.completions[1:])), *others]
    (found, *_), stats = gradients_of(policy, changed, rewards, config)
    assert stats.is_finite
    assert all(bool(gradient.isfinite().all()) for gradient in found.values())


def test_an_ungraded_completion_changes_nothing_by_what_it_is(case):
    config, policy, groups, rewards, *_ = case
    graded = rewards.graded.clone()
    graded[0, 1] = graded[2, 3] = False
    (expected, *_), _ = gradients_of(policy, groups, Rewards(rewards.values, graded), config)
    values = torch.where(graded, rewards.values, 77.0)
    other = replace(groups[0].completions[1], tokens=(1, 2, 3), logprobs=(-9.0, -9.0, -9.0))
    completions = (groups[0].completions[0], other, *groups[0].completions[2:])
    changed = [replace(groups[0], completions=completions), *groups[1:]]
    (found, *_), _ = gradients_of(policy, changed, Rewards(values, graded), config)
    assert_same(found, expected)


def test_a_group_that_is_not_graded_at_all_might_as_well_not_be_there(case):
    config, policy, groups, rewards, *_ = case
    (expected, *_), _ = gradients_of(policy, groups[:2], Rewards(*[part[:2] for part in rewards]), config)
    graded = rewards.graded.clone()
    graded[2] = False
    (found, *_), _ = gradients_of(policy, groups, Rewards(rewards.values, graded), config)
    assert_same(found, expected)


def test_the_origin_of_the_reward_does_not_matter(case):
    config, policy, groups, rewards, gradient, _ = case
    (found, *_), _ = gradients_of(policy, groups, Rewards(rewards.values + 3, rewards.graded), config)
    assert_same(found, gradient)


@pytest.mark.parametrize("unit", [1e-4, 1e4])
def test_the_unit_of_the_reward_does_not_matter_where_advantages_are_scaled(case, unit):
    config, policy, groups, rewards, *_ = case
    scaled = config.model_copy(update={"scale_advantage": True, "beta": 0.0, "overlong_buffer": 0.0})
    (expected, *_), _ = gradients_of(policy, groups, rewards, scaled)
    scaled = scaled.model_copy(update={"reward_range": (0.0, unit)})
    (found, *_), _ = gradients_of(policy, groups, Rewards(unit * rewards.values, rewards.graded), scaled)
    assert_same(found, expected)


@pytest.mark.parametrize("unit", [1e-6, 1e-12])
def test_nor_does_a_small_unit_of_a_grader_without_a_range(case, unit):
    config, policy, groups, rewards, *_ = case
    scaled = config.model_copy(update={"scale_advantage": True, "beta": 0.0, "overlong_buffer": 0.0})
    (expected, *_), _ = gradients_of(policy, groups, rewards, scaled)
    (found, *_), _ = gradients_of(policy, groups, Rewards(unit * rewards.values, rewards.graded), scaled)
    assert_same(found, expected)


@pytest.mark.parametrize("jitter", [0.0, 1e-5])
def test_a_constant_reward_leaves_every_bit_of_the_weights(case, jitter):
    """Also where a KL is part of it: a policy that has not moved has none, whoever rounds how."""
    config, _, groups, rewards, *_ = case
    policy = Policy.load(config)
    before = {name: weight.clone() for name, weight in policy.trained().items()}
    optimizer = update.make_optimizer(policy, config)
    constant = Rewards(0.7 + jitter * rewards.values, rewards.graded)
    noisy = [
        replace(
            group,
            completions=tuple(
                replace(c, logprobs=tuple(value + 0.01 for value in c.logprobs)) for c in group.completions
            ),
        )
        for group in groups
    ]
    stats = update.update_policy(policy, optimizer, noisy, constant, config, step=1)
    assert stats.values == {}
    assert stats.trained_tokens == 0
    for name, weight in policy.trained().items():
        assert weight.equal(before[name])


def constant_like(rewards):
    return Rewards(torch.full_like(rewards.values, 0.7), rewards.graded)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_kl_goes_on_acting_where_rewards_have_no_spread(sharp, algorithm):
    """What a policy has learnt is drawn back towards the reference; without a KL term nothing moves it."""
    config = made_up_config(sharp, algorithm, learning_rate=1e-2, beta=1.0, max_grad_norm=1.0)
    policy = moved(Policy.load(config))
    optimizer = update.make_optimizer(policy, config)
    prompts = [Prompt(row, {}, (1, 2, row)) for row in range(64)]

    def make_step(step, rewards, config=config):
        groups = sample_groups(policy, prompts, Sampling(2, LIMIT, 1.0, ("test", step)))
        stats = update.update_policy(policy, optimizer, groups, rewards, config, step)
        policy.sync_rollout()
        return stats.values

    some = make_rewards(n_prompts=64, group=2)
    make_step(1, some)
    before = probe_kl(policy, prompts, config).start.per_token.mean
    assert make_step(2, constant_like(some), config.model_copy(update={"beta": 0.0})) == {}
    for step in range(2, 8):
        assert make_step(step, constant_like(some))["kl/reference"] > 0
    assert probe_kl(policy, prompts, config).start.per_token.mean < 0.8 * before


@pytest.mark.parametrize("aggregation", ["token", "sequence", "constant"])
def test_one_completion_stands_for_its_group_in_the_kl_term(sharp, aggregation):
    """Where those of a group are alike, the gradient is that of all of them."""
    config = made_up_config(sharp, aggregation=aggregation)
    policy = moved(Policy.load(config))
    groups, rewards = make_groups(policy, n_prompts=2), make_rewards(n_prompts=2)
    alike = replace(groups[1], completions=groups[1].completions[:1] * 4)
    values = rewards.values.clone()
    values[1] = 0.5
    flat = Rewards(values, rewards.graded)
    config = config.model_copy(update={"scale_advantage": False})
    (found, *_), _ = gradients_of(policy, [groups[0], alike], flat, config)
    assert update.find_learnable([groups[0], alike], flat, config).forwarded.sum() == 5
    values = values.clone()
    values[1, 3] += 1.001e-3  # all are run, with advantages next to 0
    compared = Rewards(values, rewards.graded)
    assert update.find_learnable([groups[0], alike], compared, config).forwarded.sum() == 8
    (expected, *_), _ = gradients_of(policy, [groups[0], alike], compared, config)
    assert_same(found, expected, atol=1e-3, rtol=1e-2)


def test_groups_without_spread_cost_nothing_where_there_is_no_kl(sharp):
    config = made_up_config(sharp, beta=0.0)
    policy = moved(Policy.load(config))
    groups, rewards = make_groups(policy), make_rewards()
    rewards.values[1] = 0.5
    learnable = update.find_learnable(groups, rewards, config)
    assert learnable.forwarded.int().tolist() == [[1] * 4, [0] * 4, [1] * 4]
    assert learnable.beta == 0


@pytest.mark.parametrize(
    ("algorithm", "rewards", "graded", "expected"),
    [
        pytest.param("grpo", [[1, 0], [1, 1]], [[1, 1], [1, 1]], [[0, 0], [1, 0]], id="one-of-each-group"),
        pytest.param("grpo", [[1, 1], [1, 1]], [[0, 1], [0, 0]], [[0, 1], [0, 0]], id="that-is-graded"),
        pytest.param("rloo", [[1, 1], [1, 1]], [[1, 1], [1, 1]], [[0, 0], [0, 0]], id="its-rewards-have-it"),
        pytest.param("ppo", [[1, 0], [1, 1]], [[1, 1], [1, 1]], [[0, 0], [0, 0]], id="so-have-these"),
        pytest.param("ppo", [[1, 1], [1, 1]], [[1, 1], [1, 1]], [[1, 0], [1, 0]], id="unless-all-are-equal"),
        pytest.param("reinforce_pp", [[1, 1]] * 2, [[1, 1]] * 2, [[1, 0], [1, 0]], id="here-too"),
    ],
)
def test_which_completions_are_held_by_the_kl_term_alone(algorithm, rewards, graded, expected):
    config = make_config("model", algorithm=algorithm, beta=0.1)
    found = Rewards(torch.tensor(rewards).double(), torch.tensor(graded).bool())
    trained = compared_completions(found, config)
    assert held_completions(found.graded, trained, config).int().tolist() == expected


def test_rloo_learns_from_its_kl_where_rewards_are_constant(sharp):
    config = made_up_config(sharp, "rloo")
    policy = moved(Policy.load(config))
    groups, rewards = make_groups(policy), make_rewards()
    constant = Rewards(torch.full_like(rewards.values, 0.7), rewards.graded)
    (found, *_), stats = gradients_of(policy, groups, constant, config)
    assert sum(float(g.norm()) for g in found.values()) > 1e-4
    assert stats.values["kl/reference"] > 0
    nothing, _ = gradients_of(policy, groups, constant, config.model_copy(update={"beta": 0.0}))
    assert nothing == []


def test_the_kl_in_rewards_pulls_towards_the_reference(sharp):
    """From the KL alone, on what the policy samples."""
    config = made_up_config(sharp, "rloo", learning_rate=1e-2, beta=1.0)
    policy = moved(Policy.load(config))
    prompts = [Prompt(row, {}, (1, 2, row)) for row in range(4)]
    optimizer = update.make_optimizer(policy, config)
    constant = Rewards(torch.zeros(4, 16).double(), torch.ones(4, 16).bool())
    found = []
    for step in range(1, 7):
        groups = sample_groups(policy, prompts, Sampling(16, LIMIT, 1.0, ("test", step)))
        stats = update.update_policy(policy, optimizer, groups, constant, config, step)
        found.append(stats.values["kl/reference"])
        policy.sync_rollout()
    assert found[-1] < 0.7 * found[0]


# Settings.


def cut(groups, row, column):
    """One completion that ended; the others of `make_groups` were cut."""
    ended = replace(groups[row].completions[column], finish_reason="stop")
    completions = [*groups[row].completions]
    completions[column] = ended
    return [*groups[:row], replace(groups[row], completions=tuple(completions)), *groups[row + 1 :]]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_truncated_completions_leave_the_gradient_but_not_the_baseline(sharp, algorithm):
    """Two completions have ended: only their tokens have a gradient, which the others' rewards still move."""
    config = made_up_config(sharp, algorithm, mask_truncated=True)
    policy = moved(Policy.load(config))
    groups, rewards = make_groups(policy), make_rewards()
    groups = cut(cut(groups, 0, 1), 0, 2)
    (found, *_), stats = gradients_of(policy, groups, rewards, config)
    other = replace(groups[0].completions[0], tokens=(5, 6, 7), logprobs=(-5.0,) * 3)
    swapped = [replace(groups[0], completions=(other, *groups[0].completions[1:])), *groups[1:]]
    (same, *_), _ = gradients_of(policy, swapped, rewards, config)
    values = rewards.values.clone()
    values[0, 0] += 1
    (different, *_), _ = gradients_of(policy, groups, Rewards(values, rewards.graded), config)
    if not config.has_kl_in_reward:
        assert_same(same, found)
    name = next(name for name, g in found.items() if g.norm() > 1e-4)
    stays = torch.allclose(different[name], found[name], rtol=1e-2)
    assert stays == (algorithm == "reinforce_pp")  # whose baseline is the tokens that have a gradient
    assert stats.is_finite
    nothing, _ = gradients_of(policy, make_groups(policy), rewards, config)
    assert nothing == []


def test_overlong_punishment_by_hand():
    lengths = torch.tensor([0, 60, 80, 90, 100, 130])
    found = overlong_punishment(lengths, limit=100, buffer=20, penalty=0.5)
    assert found.tolist() == [0, 0, 0, 0.25, 0.5, 0.5]
    assert not overlong_punishment(lengths, limit=100, buffer=0, penalty=0.5).any()


def test_long_completions_are_punished(sharp):
    """By hand: at most 8 tokens, the last half punished by up to 2, on constant lengths of 4, 6, 8."""
    config = made_up_config(sharp, "dr_grpo", overlong_buffer=0.5, overlong_penalty=2.0)
    policy = Policy.load(config)
    (group,) = make_groups(policy, n_prompts=1, group=3)
    long = tuple(
        replace(c, tokens=(7,) * n, logprobs=(-1.0,) * n)
        for c, n in zip(group.completions, (4, 6, 8), strict=True)
    )
    rewards = Rewards(torch.tensor([[0.0, 0.0, 3.0]]).double(), torch.ones(1, 3).bool())
    learnable = update.find_learnable([replace(group, completions=long)], rewards, config)
    assert learnable.rewards.values.tolist() == [[0.0, -1.0, 1.0]]
    assert learnable.measured == {"reward/overlong_penalty": 1.0}
    same = Rewards(torch.zeros(1, 3).double(), torch.ones(1, 3).bool())
    free = config.model_copy(update={"beta": 0.0})
    assert update.find_learnable([replace(group, completions=long)], same, free) is None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_updates_after_the_first_are_held_near_the_policy_before_it(sharp, algorithm):
    config = made_up_config(sharp, algorithm, updates_per_step=3, learning_rate=0.02)
    policy = moved(Policy.load(config))
    groups, rewards = make_groups(policy), make_rewards()
    stats = update.update_policy(
        policy, update.make_optimizer(policy, config), groups, rewards, config, step=1
    )
    assert stats.values["ratio/min"] < 1 < stats.values["ratio/max"]
    if algorithm != "cispo":  # a weight of at most 5
        assert stats.values["ratio/clipped_share"] > 0
    assert stats.values["sampler/mismatch"] < 1e-5


@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "ppo"])
def test_a_first_update_has_ratio_one_to_the_last_bit(sharp, algorithm):
    config = made_up_config(sharp, algorithm, updates_per_step=1)
    policy = moved(Policy.load(config))
    stats = gradients_of(policy, make_groups(policy), make_rewards(), config)[1]
    assert (stats.values["ratio/min"], stats.values["ratio/max"]) == (1.0, 1.0)


def test_rollouts_of_an_older_policy_are_weighted_and_reported_as_lag(sharp):
    config = made_up_config(sharp, beta=0.0, async_steps=1, importance_cap=1.5)
    policy = moved(Policy.load(config))
    groups, rewards = make_groups(policy), make_rewards()

    def older(by):
        return [
            replace(
                group,
                completions=tuple(
                    replace(c, logprobs=tuple(value - by for value in c.logprobs)) for c in group.completions
                ),
            )
            for group in groups
        ]

    (fresh, *_), stats = gradients_of(policy, groups, rewards, config)
    assert stats.values["sampler/lag"] < 1e-5
    assert stats.values["ratio/truncated_share"] == 0
    (weighted, *_), stats = gradients_of(policy, older(0.2), rewards, config)
    assert_same(weighted, {name: 1.2214028 * g for name, g in fresh.items()})
    assert stats.values["sampler/lag"] == pytest.approx(0.2, abs=1e-5)
    assert stats.values["sampler/lag_max"] == pytest.approx(0.2, abs=1e-5)
    assert "sampler/mismatch" not in stats.values
    (truncated, *_), stats = gradients_of(policy, older(1.0), rewards, config)
    assert_same(truncated, {name: 1.5 * g for name, g in fresh.items()})
    assert stats.values["ratio/truncated_share"] == 1


def test_the_kl_in_rewards_is_of_the_policy_that_is_updated_not_of_an_older_one(sharp):
    config = made_up_config(sharp, "rloo", async_steps=1, importance_cap=1.0, beta=1.0)
    policy = moved(Policy.load(config))
    groups, rewards = make_groups(policy), make_rewards()
    older = [
        replace(
            group,
            completions=tuple(
                replace(c, logprobs=tuple(value - 0.5 * i for value in c.logprobs))
                for i, c in enumerate(group.completions)
            ),
        )
        for group in groups
    ]
    (expected, *_), _ = gradients_of(policy, groups, rewards, config)
    (found, *_), _ = gradients_of(policy, older, rewards, config)
    assert_same(found, expected)


def test_both_rates_warm_up_and_the_heads_gradient_is_clipped_apart(sharp):
    config = made_up_config(
        sharp, "ppo", warmup_steps=3, learning_rate=0.04, value_learning_rate=0.4, max_grad_norm=1e-3
    )
    policy = moved(Policy.load(config))
    groups, rewards = make_groups(policy), make_rewards()
    optimizer = update.make_optimizer(policy, config)
    clipped = []
    head = set(policy.value_head.parameters())

    def norms():
        squares = {True: 0.0, False: 0.0}
        for weight in policy.trained().values():
            squares[weight in head] += float(weight.grad.square().sum())
        clipped.append((squares[False] ** 0.5, squares[True] ** 0.5))

    optimizer.step = norms
    stats = update.update_policy(policy, optimizer, groups, rewards, config, step=2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.02, 0.2])
    assert stats.values["optim/lr"] == pytest.approx(0.02)
    assert len(clipped) == config.updates_per_step == 2
    assert clipped[0] == pytest.approx((1e-3, 1e-3), rel=1e-2)


def test_ppos_values_come_to_explain_the_returns(sharp):
    """The same rollouts again and again, without moving the policy."""
    config = made_up_config(
        sharp, "ppo", beta=0.0, learning_rate=1e-9, value_learning_rate=1.0, value_clip=10
    )
    policy = Policy.load(config)
    groups = make_groups(policy)
    rewards = Rewards(
        torch.tensor([[1.0], [0.0], [0.5]]).expand(3, 4).double() + 0.1 * make_rewards().values,
        torch.ones(3, 4).bool(),
    )
    optimizer = update.make_optimizer(policy, config)
    found = [
        update.update_policy(policy, optimizer, groups, rewards, config, step).values for step in range(1, 13)
    ]
    assert found[0]["value/explained_variance"] == pytest.approx(0, abs=1e-6)
    assert found[-1]["value/explained_variance"] > 0.3
    assert found[-1]["value/loss"] < 0.7 * found[0]["value/loss"]


def test_a_gradient_of_the_value_head_that_is_not_finite_stops_the_update(sharp):
    config = made_up_config(sharp, "ppo")
    policy = moved(Policy.load(config))
    groups, rewards = make_groups(policy), make_rewards()
    policy.value_head.linear.weight.register_hook(lambda gradient: gradient * float("nan"))
    before = {name: weight.clone() for name, weight in policy.trained().items()}
    stats = update.update_policy(
        policy, update.make_optimizer(policy, config), groups, rewards, config, step=1
    )
    assert not stats.is_finite
    for name, weight in policy.trained().items():
        assert weight.equal(before[name])
