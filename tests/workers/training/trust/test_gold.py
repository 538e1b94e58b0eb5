"""When the gold grader disagrees with the reward."""

import numpy as np
import pytest

from tests.workers.training.support import FunctionGrader, ListRecorder, early_letters, make_config, make_rows
from workers.training.loop import train
from workers.training.trust.gold import gold_alarm, gold_outcome
from workers.training.trust.selection import Look

BASE = tuple(np.random.default_rng(3).random(12))


def look(step, shift):
    return Look(step, 0.0, tuple(row + shift for row in BASE))


def alarm(rewards, gold):
    return gold_alarm(
        [look(5 * i, shift) for i, shift in enumerate(rewards)],
        [look(5 * i, shift) for i, shift in enumerate(gold)],
        seed=1,
    )


@pytest.mark.parametrize(
    ("rewards", "gold", "is_told"),
    [
        ([0, 0.3, 0.4], [0, -0.2, -0.3], True),
        ([0, 0.3, 0.4], [0, 0.2, -0.3], False),
        ([0, 0.3, 0.4], [0, -0.2, 0.3], False),
        ([0, -0.1, 0.4], [0, -0.2, -0.3], False),
        ([0, 0.3], [0, -0.2], False),
        ([0, 0, 0.3, 0.4], [0, 0.1, -0.2, -0.3], True),
    ],
)
def test_a_warning_takes_two_evaluations_in_a_row(rewards, gold, is_told):
    found = alarm(rewards, gold)
    assert (found is not None) == is_told
    if found:
        assert "risen against the base (+0.4) and the gold grader's has fallen (-0.3)" in found


def test_a_fall_within_noise_is_none():
    noise = np.random.default_rng(1).normal(0, 0.3, (2, 12))
    gold = [
        look(0, 0),
        *(Look(5 * i + 5, 0.0, tuple(BASE + n - n.mean() - 0.02)) for i, n in enumerate(noise)),
    ]
    assert gold_alarm([look(0, 0), look(5, 0.3), look(10, 0.3)], gold, seed=1) is None


def test_what_the_gold_grader_says_of_what_is_delivered():
    gold = [look(0, 0), look(5, -0.2), look(10, 0.1)]
    assert gold_outcome([], 5, 1) is None
    found = gold_outcome(gold, 5, 1)
    assert found.base == pytest.approx(np.mean(BASE))
    assert found.delivered == pytest.approx(np.mean(BASE) - 0.2)
    assert found.difference == pytest.approx(-0.2)
    assert found.p_fall == 1 / 4096
    assert gold_outcome(gold, 0, 1)[2:] == (0.0, None)
    missing = gold_outcome([Look(0, 0.0, (None, 0.5)), Look(5, 0.0, (0.4, None))], 5, 1)
    assert (missing.base, missing.delivered, missing.difference) == (0.5, 0.4, None)


@pytest.mark.slow
def test_a_run_warns_once_and_failures_of_the_gold_grader_fail_nothing(sharp, tmp_path):
    def gold(text, item):
        if item["answer"] == "ten":
            raise RuntimeError("gone")
        return -early_letters(text, item)

    config = make_config(
        sharp,
        n_epochs=8,
        prompts_per_step=4,
        group_size=16,
        max_completion_tokens=8,
        eval_interval=2,
        eval_samples=4,
        eval_temperature=1.0,
        learning_rate=3e-2,
        beta=0.0,
    )
    valid = make_rows("five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "more", "less")
    recorder = ListRecorder()
    result = train(
        config,
        make_rows("one", "two", "three", "four"),
        valid,
        FunctionGrader(early_letters),
        recorder,
        tmp_path,
        gold_grader=FunctionGrader(gold),
    )
    assert result.verdict.kind == "better_unseen"
    assert result.gold.difference == pytest.approx(-result.verdict.gain, abs=0.1)
    assert result.gold.p_fall < 0.05
    notes = [message for _, message in recorder.all("note")]
    assert len([note for note in notes if "gold grader's has fallen" in note]) == 1
    assert len([note for note in notes if "10% of the gold grades failed" in note]) == 5
    values = recorder.history()[4]
    assert values["reward/gold_mean"] == pytest.approx(
        values["reward/gold_over_base"] + recorder.history()[0]["reward/gold_mean"]
    )
    assert values["reward/gold_stderr"] > 0
    (saved,) = [saved for (saved,) in recorder.all("checkpoint") if saved.step == 4]
    assert saved.extra["gold_reward"] == values["reward/gold_mean"]
