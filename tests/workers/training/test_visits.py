"""Which prompts a step visits: the rule by hand, and in runs."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graders import FailureKind
from tests.properties import examples
from tests.workers.training.support import FunctionGrader, ListRecorder, make_config, make_rows
from tests.workers.training.test_collector import any_number, make_collector, rows_of, spread_on
from workers.training.base.errors import RunCancelled
from workers.training.loop import train
from workers.training.metrics import Clock
from workers.training.visits import LONGEST_WAIT, Visit, Visits

__all__ = ["make_collector"]  # a fixture


def visited(found, epochs, n_rows=1):
    """In which epochs each row is visited where `found(row, epoch)` says what is flat."""
    visits = Visits().of(n_rows)
    times = [[] for _ in range(n_rows)]
    for epoch in range(1, epochs + 1):
        due = [row for row in range(n_rows) if visits.is_due(row, epoch)]
        for row in due:
            times[row].append(epoch)
        visits.note(epoch, [Visit(row, found(row, epoch), is_solved=False) for row in due])
    return times


def test_a_prompt_that_stays_flat_is_visited_after_1_2_4_8_16_and_then_every_20_epochs():
    assert visited(lambda row, epoch: True, 100) == [[1, 2, 4, 8, 16, 32, 52, 72, 92]]


def test_one_visit_with_spread_makes_a_prompt_due_in_every_epoch_again():
    (epochs,) = visited(lambda row, epoch: epoch != 16, 22)
    assert epochs == [1, 2, 4, 8, 16, 17, 18, 20]


def test_a_prompt_with_spread_is_visited_in_every_epoch():
    assert visited(lambda row, epoch: False, 9) == [list(range(1, 10))]


@examples(30)
@given(st.integers(1, 12), st.randoms(use_true_random=False))
def test_no_prompt_waits_longer_than_20_epochs_and_none_with_spread_waits_at_all(n_rows, luck: random.Random):
    flat = {}

    def found(row, epoch):
        flat[row, epoch] = luck.random() < 0.8
        return flat[row, epoch]

    for row, epochs in enumerate(visited(found, 120, n_rows)):
        gaps = [later - earlier for earlier, later in zip([0, *epochs], [*epochs, 121], strict=False)]
        assert max(gaps) <= LONGEST_WAIT
        assert all(gap == 1 for epoch, gap in zip(epochs, gaps[1:-1], strict=False) if not flat[row, epoch])


def test_a_step_with_nothing_due_takes_the_row_that_waited_longest():
    visits = Visits(epochs=[5, 3, 3, 4], waits=[20, 20, 20, 20], solved=[False] * 4)
    assert visits.due([3, 2, 1, 0], 6) == [2]
    assert visits.due([0, 3], 6) == [3]
    assert visits.due([0, 1], 23) == [1]


def test_solved_is_what_every_last_visit_says():
    visits = Visits().of(2)
    assert not visits.is_all_solved
    visits.note(1, [Visit(0, True, True), Visit(1, True, True)])
    assert visits.is_all_solved
    visits.note(2, [Visit(1, False, False)])
    assert not visits.is_all_solved
    assert not Visits().is_all_solved


def steps_of(collector, n_steps):
    return [rows_of(collector.collect(step, Clock()).groups) for step in range(1, n_steps + 1)]


def test_the_first_epochs_are_those_of_a_run_that_skips_nothing(make_collector):
    every = steps_of(make_collector(spread_on(*"abc")), 6)
    assert steps_of(make_collector(spread_on(*"abc"), skip_flat_prompts=True), 6) == every


def test_flat_prompts_leave_their_steps_and_the_others_keep_their_places(make_collector):
    """Eight rows, of which five are flat, in steps of three."""
    every = steps_of(make_collector(spread_on(*"abc"), n_epochs=12), 36)
    fewer = steps_of(make_collector(spread_on(*"abc"), n_epochs=12, skip_flat_prompts=True), 36)
    for batch, rows in zip(every, fewer, strict=True):
        with_spread = [row for row in batch if row < 3]
        assert rows == [row for row in batch if row in rows]
        assert rows
        assert [row for row in rows if row < 3] == with_spread
    flat_visits = [row for rows in fewer[9:] for row in rows if row >= 3]
    assert set(flat_visits) == {3, 4, 5, 6, 7}
    assert len(flat_visits) < 5 * 9 / 2


def test_a_failed_grade_says_nothing_about_a_prompt(make_collector):
    collector = make_collector(lambda text, item: FailureKind.OTHER, skip_flat_prompts=True)
    steps_of(collector, 3)
    assert collector.visits.waits == [0] * 8


def test_a_prompt_is_solved_at_the_top_of_the_graders_range_alone(make_collector):
    def grade(text, item):
        return {"a": 2.0, "b": 0.0}.get(item["answer"], 1.0)

    collector = make_collector(grade, make_rows(*"abc"), reward_range=(0.0, 2.0))
    steps_of(collector, 1)
    assert (collector.visits.waits, collector.visits.solved) == ([1, 1, 1], [True, False, False])


def test_dynamic_sampling_draws_no_prompt_that_is_not_due(make_collector):
    collector = make_collector(spread_on("a"), sampling_rounds=3, skip_flat_prompts=True, n_epochs=4)
    assert sorted({row for rows in steps_of(collector, 3) for row in rows}) == list(range(8))
    waiting = [row for row in range(8) if not collector.visits.is_due(row, 2)]
    second = [row for rows in steps_of_epoch(collector, 2) for row in rows]
    assert waiting
    assert len(second) < 8 + 3
    assert 0 in second


def steps_of_epoch(collector, epoch):
    return [rows_of(collector.collect(step, Clock()).groups) for step in range(3 * epoch - 2, 3 * epoch + 1)]


@pytest.mark.parametrize("changes", [{}, {"async_steps": 1}, {"sampling_rounds": 2, "async_steps": 1}])
def test_a_stopped_run_goes_on_with_the_same_visits(tiny, tmp_path, changes):
    def grade(text, item):
        return any_number(text, item) / 2**32 if item["answer"] in "ab" else 0.5

    def go(folder, stops=()):
        recorder = ListRecorder()
        config = make_config(tiny, n_epochs=6, eval_interval=4, skip_flat_prompts=True, **changes)
        left = iter(stops)
        train(
            config,
            make_rows(*"abcde"),
            [],
            FunctionGrader(grade),
            recorder,
            folder,
            lambda: next(left, False),
        )
        return recorder

    def sampled(recorder):
        return {step: rows_of(groups) for _, step, _, groups in recorder.all("rollouts")}

    whole = go(tmp_path / "whole")
    with pytest.raises(RunCancelled):
        go(tmp_path / "stopped", [False] * 11 + [True])
    state = json.loads((tmp_path / "stopped" / "state_000011" / "progress.json").read_text())
    assert max(state["visits"]["waits"]) > 1
    rest = go(tmp_path / "stopped")
    assert sampled(rest) == {step: rows for step, rows in sampled(whole).items() if step > 11}
    assert {step: values for step, values in whole.history().items() if step > 11} == rest.history()


def test_max_steps_bounds_the_steps_of_thousands_of_epochs(tiny, tmp_path):
    config = make_config(tiny, n_epochs=10_000, max_steps=5, eval_interval=100)
    recorder = ListRecorder()
    result = train(config, make_rows("a", "b", "c"), [], FunctionGrader(any_number), recorder, tmp_path)
    assert result.steps == 5
    assert [(step, epoch) for step, epoch, _ in recorder.all("metrics")] == [
        (0, 0),
        (1, 1),
        (2, 1),
        (3, 2),
        (4, 2),
        (5, 3),
    ]
