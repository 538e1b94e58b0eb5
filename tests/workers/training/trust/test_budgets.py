"""Budgets: what counts, when one is used up, and what a run does then."""

import pytest

from graders import Grade, TokenUsage
from methods.prices import ModelPrice, Prices
from tests.workers.training.support import FunctionGrader, ListRecorder, early_letters, make_config, make_rows
from workers.training.base.errors import RunPaused
from workers.training.loop import train
from workers.training.trust.budgets import SpentBudget, find_spent_budget, spent_so_far

PRICES = Prices(
    currency="EUR",
    device_hour=3.6,
    models={"big": ModelPrice(input=2.0, output=8.0, cached=0.5), "small": ModelPrice(input=1.0)},
)
USAGE = {
    "big": TokenUsage(1_000_000, 500_000, 400_000, calls=7),
    "small": TokenUsage(2_000_000, 9, 0, calls=2),
}


def test_money_is_tokens_and_time_by_the_table():
    big = 0.6 * 2.0 + 0.4 * 0.5 + 0.5 * 8.0
    assert PRICES.cost(USAGE, 500.0) == pytest.approx(big + 2.0 + 0.5)
    assert PRICES.unpriced(["small", "other"]) == ["other"]


def test_what_a_run_has_spent(tiny):
    config = make_config(tiny, prices=PRICES, processes=2)
    spent = spent_so_far(config, seconds=250.0, sampled_tokens=12, usage=USAGE)
    assert spent == {
        "max_seconds": 250.0,
        "max_sampled_tokens": 12,
        "max_judge_calls": 9,
        "max_cost": pytest.approx(7.9),
    }
    assert "max_cost" not in spent_so_far(make_config(tiny), seconds=1, sampled_tokens=1, usage=USAGE)


@pytest.mark.parametrize(
    ("budget", "limit", "words"),
    [
        ("max_seconds", 99.5, "max_seconds is used up: 100 of 99.5 seconds of training"),
        ("max_sampled_tokens", 1000, "max_sampled_tokens is used up: 2,000 of 1,000 sampled tokens"),
        ("max_judge_calls", 9, "max_judge_calls is used up: 9 of 9 calls of graders' models"),
        ("max_cost", 7.5, "max_cost is used up: 7.5 of 7.5 EUR"),
    ],
)
def test_a_budget_is_used_up_at_its_limit_and_not_before(tiny, budget, limit, words):
    spent = {"max_seconds": 100, "max_sampled_tokens": 2000, "max_judge_calls": 9, "max_cost": 7.5}
    config = make_config(tiny, prices=PRICES, **{budget: limit})
    assert str(find_spent_budget(config, spent, {})) == words
    assert find_spent_budget(config, {**spent, budget: limit - 1e-6}, {}) is None
    assert find_spent_budget(config, spent, spent) is None
    assert find_spent_budget(make_config(tiny), spent, {}) is None


def test_going_on_grants_a_budget_anew(tiny):
    config = make_config(tiny, max_sampled_tokens=100)
    assert find_spent_budget(config, {"max_sampled_tokens": 219}, {"max_sampled_tokens": 120}) is None
    found = find_spent_budget(config, {"max_sampled_tokens": 220}, {"max_sampled_tokens": 120})
    assert found == SpentBudget("max_sampled_tokens", 100, 100, "sampled tokens")


ROWS, VALID = make_rows("one", "two", "three"), make_rows(*"abcdef")


def judged(text, item):
    return Grade(early_letters(text, item), usage={"judge": TokenUsage(10, 1, calls=1)})


def go(config, folder, grade=early_letters):
    recorder = ListRecorder()
    return train(config, ROWS, VALID, FunctionGrader(grade), recorder, folder), recorder


def config_of(tiny, **changes):
    return make_config(tiny, n_epochs=4, eval_interval=4, **changes)


def test_a_spent_budget_ends_the_run_with_a_measured_step(tiny, tmp_path):
    """Each step samples at most 2 x 4 x 6 tokens, the base's evaluation 6 x 6."""
    whole, told = go(config_of(tiny), tmp_path / "whole")
    tokens = [0, *told.series("tokens/train_sampled")]
    base = told.series("tokens/valid_sampled")[0]
    spent = [base + sum(tokens[: step + 1]) for step in range(len(tokens))]
    result, recorder = go(config_of(tiny, max_sampled_tokens=int(spent[3])), tmp_path / "bounded")
    assert (whole.steps, result.steps) == (8, 3)
    assert [saved.step for (saved,) in recorder.all("checkpoint")] == [0, 3]
    assert max(recorder.history()) == 3
    (warning,) = [message for level, message in recorder.all("note") if level == "warn" and "max_" in message]
    assert f"max_sampled_tokens is used up: {spent[3]:,.6g} of" in warning
    assert "Training ends here, 5 steps early" in warning
    again, silent = go(config_of(tiny, max_sampled_tokens=int(spent[3])), tmp_path / "bounded")
    assert (again.steps, again.best.step, silent.all("metrics")) == (3, result.best.step, [])


def test_calls_of_judges_are_a_budget(tiny, tmp_path):
    """Eight and four for an epoch's two steps, and six for each evaluation."""
    result, recorder = go(config_of(tiny, max_judge_calls=6 + 8 + 4), tmp_path, judged)
    assert result.steps == 2
    assert recorder.history()[2]["usage/total/calls/judge"] == 6 + 8 + 4 + 6


def test_a_run_pauses_for_its_budget_and_goes_on_with_the_same_history(tiny, tmp_path):
    whole, told = go(config_of(tiny), tmp_path / "whole", judged)
    config = config_of(tiny, max_judge_calls=20, on_budget="pause")
    history, messages, pauses = {}, [], 0
    while True:
        recorder = ListRecorder()
        try:
            result = train(config, ROWS, VALID, FunctionGrader(judged), recorder, tmp_path / "paused")
            break
        except RunPaused:
            pauses += 1
        finally:
            history |= recorder.history()
            messages += [message for (message,) in recorder.all("pausing")]
    assert history == told.history()
    assert (result.steps, result.best.step) == (whole.steps, whole.best.step)
    assert pauses == len(messages) == 2, "after steps 3 and 6"
    assert "max_judge_calls is used up: " in messages[0]
