"""Runs whose evaluations are level end early, and go on in the same way after a kill."""

import contextlib

import pytest

from tests.workers.training.support import FunctionGrader, ListRecorder, make_config, make_rows
from workers.training.base.errors import FlatReward, RunCancelled
from workers.training.endings import Endings
from workers.training.loop import train
from workers.training.state import Progress, read_progress, write_progress
from workers.training.trust.selection import Look

ROWS, VALID = make_rows("one", "two", "three"), make_rows(*"abcdef")


def go(tiny, folder, reward, should_stop=lambda: False, **changes):
    recorder = ListRecorder()
    fields = {"n_epochs": 10, "eval_interval": 1, "early_stop": True, "early_stop_evals": 4}
    config = make_config(tiny, **{**fields, **changes})
    grader = FunctionGrader(lambda text, item: reward)
    return train(config, ROWS, VALID, grader, recorder, folder, should_stop), recorder


def notes(recorder):
    return [message for _, message in recorder.all("note") if "early_stop" in message]


def test_a_run_without_a_gain_ends_after_half_as_many_evaluations_again(tiny, tmp_path):
    result, recorder = go(tiny, tmp_path, 0.5)
    assert result.steps == 5, "the base and five checkpoints"
    assert (result.best.step, max(recorder.history())) == (0, 5)
    (said,) = notes(recorder)
    assert said.startswith("Step 5: training ends here, 15 steps early (early_stop). The last 6 evaluations")
    assert "were level: mean 0.5, trend +0" in said


def test_a_run_whose_prompts_are_all_solved_ends_with_fewer(tiny, tmp_path):
    result, recorder = go(tiny, tmp_path, 1.0)
    assert result.steps == 2, "as soon as each of the three prompts was visited"
    assert "Every training prompt is solved" in notes(recorder)[0]


def test_a_run_that_has_seen_no_spread_goes_on_until_that_fails_it(tiny, tmp_path):
    with pytest.raises(FlatReward, match="of 256 completions up to step"):
        go(tiny, tmp_path, 0.5, allow_flat_reward=False, n_epochs=40, group_size=8)


def test_a_run_that_does_not_ask_for_it_goes_on(tiny, tmp_path):
    assert go(tiny, tmp_path, 1.0, early_stop=False, n_epochs=4)[0].steps == 8


@pytest.mark.parametrize("stops", [3, pytest.param(5, marks=pytest.mark.long)])
def test_a_stopped_run_ends_where_it_would_have(tiny, tmp_path, stops):
    whole, told = go(tiny, tmp_path / "whole", 0.5)
    left = iter([False] * stops + [True])
    with contextlib.suppress(RunCancelled):  # after five steps it is over
        go(tiny, tmp_path / "stopped", 0.5, lambda: next(left))
    result, recorder = go(tiny, tmp_path / "stopped", 0.5)
    assert (result.steps, result.best.step) == (whole.steps, whole.best.step)
    assert recorder.history() == {step: row for step, row in told.history().items() if step > stops}


@pytest.mark.parametrize(("is_given_up", "ended"), [(True, None), (False, "early_stop")])
def test_what_the_guard_gave_up_makes_no_run_level(tmp_path, is_given_up, ended):
    """A reward of 0.9 that was had by a wreck is no peak from which the run has fallen."""
    looks = [Look(step, 0.1, (reward,) * 6) for step, reward in enumerate((0.1, 0.3, 0.9, 0.35, 0.4, 0.45))]
    looks[2] = looks[2]._replace(is_given_up=is_given_up)
    write_progress(tmp_path, Progress(step=5, looks=looks))
    progress = read_progress(tmp_path)
    assert progress.looks == looks
    config = make_config("m", early_stop=True, early_stop_evals=4)
    Endings(config, 40, ListRecorder()).end_if_level(progress)
    assert progress.ended == ended
