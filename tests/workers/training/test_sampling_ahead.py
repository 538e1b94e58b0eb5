"""Sampling one step ahead: which version samples what, and how it ends."""

import threading
from typing import Any

import pytest

from tests.workers.training.support import (
    FunctionGrader,
    Killed,
    KilledRecorder,
    ListRecorder,
    early_letters,
    make_config,
    make_rows,
    sampling_threads,
)
from workers.training import loop
from workers.training.base.errors import RunCancelled
from workers.training.collector import Collector
from workers.training.loop import train
from workers.training.model.policy import Policy
from workers.training.prompts import make_prompts
from workers.training.rewards import GradePool
from workers.training.sampling import backend as backend_module
from workers.training.sampling.rollout import Sampling, sample_groups

PATIENCE = 30
"""Seconds after which a test that waits for another thread fails."""


def as_sampled(group):
    return group.prompt.row, group.completions


def versions_and_rollouts(config, tmp_path, monkeypatch):
    """A run's weights after each number of updates, and the groups of each step."""
    versions: list[dict[str, Any]] = []
    plain = loop.update_policy

    def copies(policy):
        return {name: weight.detach().clone() for name, weight in policy.trained().items()}

    def watched(policy, *args):
        if not versions:
            versions.append(copies(policy))
        stats = plain(policy, *args)
        versions.append(copies(policy))
        return stats

    monkeypatch.setattr(loop, "update_policy", watched)
    recorder = ListRecorder()
    valid = make_rows("x", "y")
    train(config, make_rows(*"abc"), valid, FunctionGrader(early_letters), recorder, tmp_path)
    groups = {
        (split, step): [as_sampled(group) for group in groups]
        for split, step, _, groups in recorder.all("rollouts")
    }
    return versions, groups


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["lora", "full"])
@pytest.mark.parametrize("async_steps", [0, 1])
def test_each_step_is_sampled_by_the_version_that_the_rule_names(
    sharp, tmp_path, monkeypatch, adapter, async_steps
):
    """Step t by the weights after t - 1 updates, or one fewer when ahead; validation always by the newest."""
    config = make_config(sharp, adapter=adapter, async_steps=async_steps, n_epochs=3, learning_rate=0.02)
    versions, told = versions_and_rollouts(config, tmp_path, monkeypatch)
    policy = Policy.load(config)
    pool = GradePool(FunctionGrader(early_letters))
    prompts = make_prompts(make_rows(*"abc"), policy.tokenizer, policy.context, "training")
    order = Collector(policy, prompts, pool, config, ListRecorder())
    assert len(versions) == 7
    for step in range(1, 7):
        sampling = Sampling(4, 6, 1.0, ("train", 1, step))
        by_version = []
        for weights in versions:
            policy.load_trained(weights)
            groups = sample_groups(policy, order.prompts(step), sampling)
            by_version.append([as_sampled(group) for group in groups])
        expected = max(step - 1 - async_steps, 0)
        assert [v for v, found in enumerate(by_version) if found == told["train", step]] == [expected]
    for step in (2, 4, 6):
        policy.load_trained(versions[step])
        valid = make_prompts(make_rows("x", "y"), policy.tokenizer, policy.context, "validation")
        groups = sample_groups(policy, valid, Sampling(1, 6, 0.0, ("valid", 1)))
        assert [as_sampled(group) for group in groups] == told["valid", step]
    pool.close()
    order.close()


def test_the_next_step_is_graded_while_this_one_is_updated(sharp, tmp_path, monkeypatch):
    graded = [threading.Event() for _ in range(6)]
    steps_of = iter(range(10**6))

    def grade(text, item):
        graded[next(steps_of) // 8].set()  # 2 prompts, 4 completions
        return early_letters(text, item)

    plain = loop.update_policy
    seen = []

    def patient(*args):
        step = args[5]
        seen.append(step == 4 or graded[step].wait(PATIENCE))
        return plain(*args)

    monkeypatch.setattr(loop, "update_policy", patient)
    config = make_config(sharp, async_steps=1, eval_interval=100, kl_probe_size=1)
    recorder = ListRecorder()
    train(config, make_rows(*"abcd"), [], FunctionGrader(grade), recorder, tmp_path)
    assert seen == [True] * 4
    assert len(recorder.series("time/waiting")) == 3
    assert sampling_threads() == []


def test_what_fails_in_the_background_ends_the_run_with_its_error(sharp, tmp_path, monkeypatch):
    calls = iter(range(10**6))

    def fails_on_the_fourth(*args, **options):
        """The first call is the base's evaluation, the fourth is made beside the update of step 2."""
        if next(calls) == 3:
            raise RuntimeError("the fourth call")
        return sample_groups(*args, **options)

    monkeypatch.setattr(backend_module, "sample_groups", fails_on_the_fourth)
    recorder = ListRecorder()
    config = make_config(sharp, async_steps=1, n_epochs=3, eval_interval=100)
    with pytest.raises(RuntimeError, match="the fourth call"):
        train(config, make_rows(*"abcd"), [], FunctionGrader(early_letters), recorder, tmp_path)
    assert [step for step, _, _ in recorder.all("metrics")] == [0, 1]
    assert sampling_threads() == []


@pytest.mark.parametrize("messages", [9, 10])
def test_leaving_a_run_ends_its_threads_though_grades_are_missing(sharp, tmp_path, messages):
    """The recorder fails while the next step is sampled, with a grader that would go on for minutes."""
    release, waited_in_vain = threading.Event(), []

    def grade(text, item):
        if sampling_threads() and not release.wait(PATIENCE):
            waited_in_vain.append(text)
        return 1.0

    config = make_config(sharp, async_steps=1, eval_interval=100)
    with pytest.raises(Killed):
        train(config, make_rows(*"abcd"), [], FunctionGrader(grade), KilledRecorder(messages), tmp_path)
    assert (sampling_threads(), waited_in_vain) == ([], [])
    release.set()


def test_a_run_that_samples_ahead_can_be_stopped(sharp, tmp_path):
    stops = iter([False, False, True])
    config = make_config(sharp, async_steps=1)
    with pytest.raises(RunCancelled, match="after step 2"):
        train(
            config,
            make_rows(*"abcd"),
            [],
            FunctionGrader(early_letters),
            ListRecorder(),
            tmp_path,
            lambda: next(stops),
        )
    assert sampling_threads() == []


@pytest.mark.slow
def test_sampling_ahead_learns_as_well(sharp, tmp_path):
    config = make_config(
        sharp,
        learning_rate=2e-2,
        n_epochs=45,
        prompts_per_step=4,
        group_size=16,
        max_completion_tokens=8,
        eval_interval=45,
        beta=0.0,
        async_steps=1,
    )
    recorder = ListRecorder()
    train(config, make_rows(*"abcd"), [], FunctionGrader(early_letters), recorder, tmp_path)
    rewards = recorder.series("reward/mean")
    assert rewards[0] < 0.2
    assert sum(rewards[-5:]) / 5 >= 0.9
