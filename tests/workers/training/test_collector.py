"""How a step's rollouts come about: overlap, dynamic sampling, several processes."""

import itertools
import threading
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.workers.training.support import (
    FunctionGrader,
    ListRecorder,
    make_config,
    make_rows,
    sampling_threads,
)
from workers.training import loop
from workers.training.base.distributed import ALONE, World
from workers.training.collector import Collector, sample_and_grade
from workers.training.loop import train
from workers.training.metrics import Clock
from workers.training.model.policy import Policy
from workers.training.prompts import make_prompts
from workers.training.rewards import GradePool, rewards_of
from workers.training.sampling.rollout import Sampling

PATIENCE = 30
"""Seconds after which a test that waits for another thread fails."""


def any_number(text, item):
    """Differs between completions that differ."""
    return float(zlib.crc32(text.encode()))


def spread_on(*answers):
    """Only these rows have completions with different rewards."""
    return lambda text, item: any_number(text, item) if item["answer"] in answers else 0.5


@pytest.fixture
def make_collector(sharp):
    """Collectors of a small model, closed at the end."""
    made = []

    def make(grade, rows=make_rows(*"abcdefgh"), world=ALONE, policy=None, make_pool=GradePool, **changes):
        config = make_config(sharp, prompts_per_step=3, **changes)
        policy = policy or Policy.load(config)
        pool = make_pool(FunctionGrader(grade), threads=config.grade_concurrency)
        prompts = make_prompts(rows, policy.tokenizer, policy.context, "training")
        made.append((pool, Collector(policy, prompts, pool, config, ListRecorder(), world)))
        return made[-1][1]

    yield make
    for pool, collector in made:
        pool.close()
        collector.close()


def rows_of(groups):
    return [group.prompt.row for group in groups]


def tokens_of(groups):
    return [[completion.tokens for completion in group.completions] for group in groups]


def without_times(rollouts):
    return rollouts.groups, rollouts.trained, rollouts.rounds


# Grading beside sampling


def test_grading_runs_while_sampling_goes_on(make_collector):
    """Sampling here waits for the grader to be called, which grading at the end would never do."""
    grader_called = threading.Event()
    seen_while_sampling = []

    class PatientPool(GradePool):
        """Is told of a completion by the sampler, which it lets go on when the grader has been called."""

        def submit(self, *completion):
            job = super().submit(*completion)
            seen_while_sampling.append(grader_called.wait(PATIENCE))
            return job

    def grade(text, item):
        grader_called.set()
        return 1.0

    rollouts = make_collector(grade, make_pool=PatientPool).collect(1, Clock())
    assert seen_while_sampling == [True] * 12
    assert [len(group.grades) for group in rollouts.groups] == [4] * 3


@pytest.mark.parametrize("concurrency", [1, 4])
def test_as_many_grader_calls_as_asked_for_are_under_way_at_once(sharp, tmp_path, concurrency):
    barrier = threading.Barrier(concurrency)
    lock = threading.Lock()
    now, most = 0, 0

    def grade(text, item):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        barrier.wait(PATIENCE)  # passes only if that many calls meet
        with lock:
            now -= 1
        return 1.0

    recorder = ListRecorder()
    config = make_config(sharp, n_epochs=1, grade_concurrency=concurrency)
    train(config, make_rows(*"abcd"), [], FunctionGrader(grade), recorder, tmp_path)
    assert most == concurrency
    assert recorder.series("reward/mean") == [1.0, 1.0]
    assert len(recorder.series("time/grading_busy")) == 2


def test_every_completion_has_its_own_grade_in_whatever_order_they_end(make_collector):
    rollouts = make_collector(any_number, max_completion_tokens=40).collect(1, Clock())
    texts = [[completion.text for completion in group.completions] for group in rollouts.groups]
    assert len({len(completion.tokens) for g in rollouts.groups for completion in g.completions}) > 1
    assert [[any_number(text, {}) for text in row] for row in texts] == rewards_of(
        rollouts.groups
    ).values.tolist()


# Dynamic sampling


def test_a_step_is_filled_up_with_groups_that_have_spread(make_collector):
    plain = make_collector(any_number).collect(1, Clock())
    first = [group.prompt.item["answer"] for group in plain.groups]
    with_spread = [first[0], *sorted(set("abcdefgh") - set(first))[:2]]
    collector = make_collector(spread_on(*with_spread), sampling_rounds=10)
    rollouts = collector.collect(1, Clock())
    assert {group.prompt.item["answer"] for group in rollouts.trained} == set(with_spread)
    assert rollouts.rounds > 1
    assert len(set(rows_of(rollouts.groups))) == len(rollouts.groups)
    assert tokens_of(rollouts.groups[:3]) == tokens_of(plain.groups)
    discarded = len(rollouts.groups) - 3
    expected = {"sampling/rounds": rollouts.rounds, "sampling/discarded_groups": discarded}
    assert collector.metrics(rollouts) == expected


def test_no_more_is_drawn_than_is_missing(make_collector):
    enough = make_collector(any_number, sampling_rounds=10).collect(1, Clock())
    assert (enough.rounds, len(enough.groups)) == (1, 3)
    one_short = make_collector(any_number, sampling_rounds=2)
    first = one_short.prompts(1)[0].item["answer"]
    found = make_collector(spread_on(*set("abcdefgh") - {first}), sampling_rounds=2).collect(1, Clock())
    assert (found.rounds, len(found.groups), len(found.trained)) == (2, 4, 3)


def test_rounds_end_at_their_limit_and_when_all_rows_are_used_up(make_collector):
    limited = make_collector(spread_on(), sampling_rounds=2, beta=0.0).collect(1, Clock())
    assert (limited.rounds, len(limited.groups), limited.trained) == (2, 6, [])
    held = make_collector(spread_on(), sampling_rounds=2, beta=0.1).collect(1, Clock())
    assert held.trained == held.groups, "for the KL term"
    used_up = make_collector(spread_on(), sampling_rounds=10).collect(1, Clock())
    assert used_up.rounds == 3
    assert sorted(rows_of(used_up.groups)) == list(range(8))


def test_dynamic_sampling_repeats_itself(make_collector):
    draws = [make_collector(spread_on("a", "b"), sampling_rounds=2).collect(1, Clock()) for _ in range(2)]
    assert without_times(draws[0]) == without_times(draws[1])


def test_each_step_draws_its_extra_prompts_in_its_own_order(make_collector):
    collector = make_collector(spread_on(), sampling_rounds=2, n_epochs=4, max_completion_tokens=1)
    extra = [rows_of(collector.collect(step, Clock()).groups)[3:] for step in range(1, 13)]
    before = {pair for rows in extra for pair in itertools.combinations(rows, 2)}
    assert any((b, a) in before for a, b in before)


def test_the_update_is_given_the_groups_with_spread_and_the_recorder_all(sharp, tmp_path, monkeypatch):
    given = []
    plain = loop.update_policy

    def watched(policy, optimizer, groups, *args):
        given.append(list(groups))
        return plain(policy, optimizer, groups, *args)

    monkeypatch.setattr(loop, "update_policy", watched)
    recorder = ListRecorder()
    config = make_config(sharp, n_epochs=1, sampling_rounds=3, eval_interval=10)
    train(config, make_rows(*"abcdef"), [], FunctionGrader(spread_on(*"ace")), recorder, tmp_path)
    told = [groups for split, _, _, groups in recorder.all("rollouts") if split == "train"]
    assert [[g for g in groups if g.prompt.item["answer"] in "ace"] for groups in told] == given
    assert recorder.series("sampling/discarded_groups") == [
        len(groups) - len(trained) for groups, trained in zip(told, given, strict=True)
    ]
    assert max(recorder.series("sampling/discarded_groups")) > 0
    assert sum(recorder.series("grades/train_count")) == 4 * sum(map(len, told))


# Several processes


class Pair(World):
    """One of two "processes" that are threads: everyone waits for the other at each call."""

    barrier: threading.Barrier
    box: list[Any]

    @classmethod
    def two(cls) -> list["Pair"]:
        pair = [cls(rank, 2) for rank in range(2)]
        barrier, box = threading.Barrier(2, timeout=PATIENCE), [None, None]
        for world in pair:
            world.barrier, world.box = barrier, box
        return pair

    def gather(self, value: Any) -> list[Any]:
        assert threading.current_thread() not in sampling_threads()
        self.box[self.rank] = value
        self.barrier.wait()
        found = list(self.box)
        self.barrier.wait()
        return found

    def broadcast(self, value: Any) -> Any:
        return self.gather(value)[0]


@pytest.mark.parametrize("changes", [{}, {"sampling_rounds": 4}, {"sampling_rounds": 4, "async_steps": 1}])
def test_two_processes_sample_what_one_does_and_both_have_it_all(make_collector, sharp, changes):
    def steps(collector) -> list[Any]:
        found = []
        for step in (1, 2, 3):
            rollouts = collector.collect(step, Clock())
            with collector.ahead(step + 1, Clock()):
                pass
            found.append(rollouts)
        return found

    rows = make_rows(*"abcdefghi")
    grade = spread_on("a", "c", "e", "g")
    alone = steps(make_collector(grade, rows, **changes))
    graded_by: Sequence[set[str]] = (set(), set())

    def watched(rank):
        def graded(text, item):
            graded_by[rank].add(text)
            return grade(text, item)

        return graded

    found: list[list[Any]] = [[], []]
    collectors = [make_collector(watched(w.rank), rows, w, **changes) for w in Pair.two()]
    threads = [
        threading.Thread(target=lambda i=i, c=c: found[i].extend(steps(c))) for i, c in enumerate(collectors)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [without_times(r) for r in found[0]] == [without_times(r) for r in found[1]]
    for together, one in zip(found[0], alone, strict=True):
        assert (rows_of(together.groups), together.rounds) == (rows_of(one.groups), one.rounds)
        assert rows_of(together.trained) == rows_of(one.trained)
        assert tokens_of(together.groups) == tokens_of(one.groups)
        assert torch.equal(rewards_of(together.groups).values, rewards_of(one.groups).values)
    if changes:
        assert max(rollouts.rounds for rollouts in alone) > 1
    assert all(graded_by)
    assert len(graded_by[0] & graded_by[1]) < len(graded_by[0])


def test_a_process_without_a_prompt_samples_nothing(lora_policy):
    assert sample_and_grade(lora_policy, [], Sampling(1, 1, 1.0, ("x",)), None, Clock()) == []


def test_the_copy_of_a_full_policy_moves_only_when_it_is_told_to(sharp):
    policy = Policy.load(make_config(sharp, adapter="full", async_steps=1))
    before = [weight.clone() for weight in policy.rollout_model.parameters()]
    with torch.no_grad():
        for weight in policy.trained().values():
            weight += 1
    assert all(map(torch.equal, before, policy.rollout_model.parameters()))
    policy.sync_rollout()
    assert all(map(torch.equal, policy.model.parameters(), policy.rollout_model.parameters()))
    assert not torch.equal(before[0], next(policy.rollout_model.parameters()))
