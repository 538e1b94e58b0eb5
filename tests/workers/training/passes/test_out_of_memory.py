"""A pass that runs out of memory: its work is done again in smaller passes, with the same results."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.workers.training.conftest import moved
from tests.workers.training.passes.small_memory import Place, SmallMemory
from tests.workers.training.support import (
    FunctionGrader,
    ListRecorder,
    early_letters,
    make_config,
    make_rows,
)
from tests.workers.training.test_update import made_up_config, make_groups, make_rewards
from workers.training.base.distributed import World
from workers.training.base.errors import OutOfMemory, PassTooLarge, RunCancelled
from workers.training.base.pass_tokens import Failure, Halved, PassesMade, PassTokens
from workers.training.base.types import Prompt
from workers.training.folders import read_manifest
from workers.training.loop import train
from workers.training.measures.canary import Canary
from workers.training.measures.kl_probe import probe_kl
from workers.training.measures.pass_plan import PassPlanner
from workers.training.model.policy import Policy
from workers.training.sampling.graphed.kept import ATTRIBUTE, Kept
from workers.training.state import newest_state, read_progress, saved_steps, state_folder
from workers.training.update import make_optimizer, update_policy

HOLDS = 40
PLENTY = 10**9


def updated(
    folder: Path, holds: int, place: Place = "forward", **changes: Any
) -> tuple[dict[str, Tensor], Policy, SmallMemory]:
    """Makes two steps of updates and returns the weights after them."""
    config = made_up_config(folder, learning_rate=1e-2, **changes)
    policy = moved(Policy.load(config))
    groups = make_groups(policy)
    memory = SmallMemory(policy.model, holds, place)
    optimizer = make_optimizer(policy, config)
    for step in (1, 2):
        stats = update_policy(policy, optimizer, groups, make_rewards(seed=step), config, step)
        assert stats.is_finite
        assert stats.trained_tokens > 0
    memory.remove()
    return {name: weight.detach().clone() for name, weight in policy.trained().items()}, policy, memory


@pytest.mark.parametrize("place", ["without gradient", "forward", "backward"])
@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_an_update_that_runs_out_of_memory_ends_with_the_weights_of_one_that_does_not(
    sharp: Path, place: Place, algorithm: str
) -> None:
    expected, _, undisturbed = updated(sharp, PLENTY, algorithm=algorithm, updates_per_step=2)
    found, policy, memory = updated(sharp, HOLDS, place, algorithm=algorithm, updates_per_step=2)
    assert undisturbed.failures == 0
    assert memory.failures >= 1
    assert undisturbed.largest > HOLDS
    assert policy.passes.most <= HOLDS
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-5)


def test_after_a_failure_all_is_as_if_passes_had_been_small_from_the_start(sharp: Path) -> None:
    found, policy, memory = updated(sharp, HOLDS, "without gradient")
    assert memory.failures == 1, "the passes of later steps are small"
    made = policy.passes.most
    expected, *_ = updated(sharp, PLENTY, micro_batch_tokens=64)
    policy = moved(Policy.load(made_up_config(sharp)))
    assert made < 64
    config = made_up_config(sharp, learning_rate=1e-2)
    policy.passes.most = made
    memory = SmallMemory(policy.model, PLENTY)
    groups, optimizer = make_groups(policy), make_optimizer(policy, config)
    for step in (1, 2):
        update_policy(policy, optimizer, groups, make_rewards(seed=step), config, step)
    for name, weight in policy.trained().items():
        assert torch.equal(weight, found[name]), name
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-5)


def test_the_kl_probe_and_the_canary_measure_the_same_in_smaller_passes(sharp: Path) -> None:
    config = make_config(sharp, kl_probe_size=4, kl_probe_samples=4, max_completion_tokens=8)
    probe = [Prompt(i, {}, (3 + i, 4, 5)) for i in range(4)]

    def measured(holds: int) -> tuple[float, float, int]:
        policy = moved(Policy.load(config))
        memory = SmallMemory(policy.model, holds, "without gradient")
        canary = Canary(policy)
        found = probe_kl(policy, probe, config).start.per_token.mean
        policy.passes.most = 16_384
        loss = canary.measure()
        assert loss is not None
        return found, loss.loss.mean, memory.failures

    kl, loss, failures = measured(30)
    expected_kl, expected_loss, none = measured(PLENTY)
    assert (failures >= 2, none) == (True, 0)
    assert kl == pytest.approx(expected_kl, rel=1e-5)
    assert loss == pytest.approx(expected_loss, rel=1e-5)


def test_one_sequence_that_does_not_fit_ends_the_run_with_figures(sharp: Path, tmp_path: Path) -> None:
    config = make_config(sharp, max_completion_tokens=8)
    policy = Policy.load(config)
    groups = make_groups(policy)
    SmallMemory(policy.model, 2)
    told: list[Halved] = []
    policy.passes.tell = told.append
    with pytest.raises(OutOfMemory, match=r"one sequence of \d+ tokens does not fit") as ended:
        update_policy(policy, make_optimizer(policy, config), groups, make_rewards(), config, 1)
    assert ended.value.code == "out_of_memory"
    assert [halved.now for halved in told] == sorted((halved.now for halved in told), reverse=True)
    assert all(weight.grad is None for weight in policy.trained().values()) or told


def test_what_a_failed_pass_held_is_freed() -> None:
    passes = PassTokens()
    held: list[weakref.ref[Tensor]] = []

    def work() -> int:
        passes.begin(100, 4)
        tensor = torch.zeros(10)
        held.append(weakref.ref(tensor))
        if len(held) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return int(tensor.sum())

    gc.disable()
    try:
        assert passes.attempt(work) == 0
    finally:
        gc.enable()
    assert held[0]() is None
    assert passes.most == 50


def test_the_sampler_that_is_kept_gives_its_memory_back_before_work_is_done_again(sharp: Path) -> None:
    class Sampler:
        shape = None

    policy = Policy.load(make_config(sharp))
    PassPlanner(policy, make_config(sharp), 10, ListRecorder())
    kept, sampler = Kept(), Sampler()
    held = weakref.ref(sampler)
    kept.give_back(policy.rollout_model, sampler)  # type: ignore[arg-type]
    setattr(policy.rollout_model, ATTRIBUTE, kept)
    del sampler
    there: list[bool] = []

    def work() -> None:
        policy.passes.begin(100, 4)
        there.append(held() is not None)
        if len(there) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    policy.passes.attempt(work)
    assert there == [True, False]


def test_an_attempt_after_one_whose_passes_were_too_large_makes_smaller_ones(sharp: Path) -> None:
    config = make_config(sharp)
    policy, recorder = Policy.load(config), ListRecorder()
    planner = PassPlanner(policy, config, 10, recorder)
    planner.settle(PassesMade(16_384), make_optimizer(policy, config), 700)
    assert policy.passes.most == 700
    assert [level for level, _ in recorder.all("note")] == ["warn"]
    planner.settle(PassesMade(300), make_optimizer(policy, config), 700)
    assert policy.passes.most == 300


def test_work_done_again_draws_the_same_random_numbers() -> None:
    passes, drawn = PassTokens(), []

    def work() -> None:
        passes.begin(100, 4)
        drawn.append(torch.rand(3).tolist())
        if len(drawn) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    passes.attempt(work)
    assert drawn[0] == drawn[1]


class OtherFails(World):
    """A world of two in which the other process runs out of memory once."""

    def __init__(self) -> None:
        super().__init__(0, 2)
        self._failures = [Failure(300, 3, 5, "CUDA out of memory."), None]

    def gather(self, value: Any) -> list[Any]:
        return [value, self._failures.pop(0)]


def test_a_failure_of_another_process_makes_all_begin_again() -> None:
    passes, done = PassTokens(world=OtherFails()), []

    def work() -> int:
        passes.begin(200, 2)
        done.append(passes.most)
        return len(done)

    assert passes.attempt(work) == 2
    assert done == [16_384, 150]


def test_a_sharded_policy_does_not_wait_for_processes_that_cannot_come() -> None:
    class Nobody(World):
        def gather(self, value: Any) -> list[Any]:
            raise AssertionError(value)

    passes = PassTokens(world=Nobody(0, 2), is_sharded=True)

    def work() -> None:
        passes.begin(600, 3)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(PassTooLarge, match="next attempt has at most 300 tokens a pass") as ended:
        passes.attempt(work)
    assert ended.value.tokens == 300


def test_a_resumed_run_makes_its_passes_as_it_did_before(sharp: Path, tmp_path: Path) -> None:
    def run(folder: Path, passes: int | None, steps: int) -> ListRecorder:
        recorder = ListRecorder()
        stops = iter([False] * steps + [True] * 100)
        config = make_config(sharp, micro_batch_tokens="auto" if passes is None else passes)
        try:
            rows = make_rows("one", "two")
            train(config, rows, [], FunctionGrader(early_letters), recorder, folder, lambda: next(stops))
        except RunCancelled:
            pass
        return recorder

    run(tmp_path, None, 1)
    folder = state_folder(tmp_path, saved_steps(tmp_path)[0])
    assert read_progress(folder).passes == PassesMade(16_384, recomputes=False)
    belongs_to = read_manifest(folder)["belongs_to"]
    assert newest_state(tmp_path, belongs_to)[0] == folder
    run(tmp_path / "before", 16_384, 1)
    other = state_folder(tmp_path / "before", saved_steps(tmp_path / "before")[0])
    assert read_manifest(other)["belongs_to"] == belongs_to, "states of runs before there was auto go on"
