"""When the gold grader disagrees with the reward."""

from pathlib import Path

import numpy as np
import pytest

from tests.workers.training.support import FunctionGrader, ListRecorder, early_letters, make_config, make_rows
from workers.training.loop import train
from workers.training.trust.gold import gold_alarm, gold_gaps, gold_outcome
from workers.training.trust.selection import Look

CONFIG = make_config(Path("nowhere"))
BASE = tuple(np.random.default_rng(3).random(12))


def look(step, shift):
    return Look(step, 0.0, tuple(row + shift for row in BASE))


def gaps(rewards, gold, **ranges):
    return gold_gaps(
        [look(5 * i, shift) for i, shift in enumerate(rewards)],
        [look(5 * i, shift) for i, shift in enumerate(gold)],
        make_config(Path("nowhere"), **ranges),
    )


@pytest.mark.parametrize(
    ("rewards", "gold", "is_told"),
    [
        pytest.param([0, 0.3, 0.4], [0, -0.2, -0.3], True, id="falls"),
        pytest.param([0, 0.3, 0.4], [0, 0.05, 0.1], True, id="rises-less"),
        pytest.param([0, 0.3, 0.4], [0, 0, 0], True, id="stays"),
        pytest.param([0, -0.1, -0.1], [0, -0.3, -0.3], False, id="falls-more"),
        pytest.param([0, 0.3, 0.4], [0, 0.3, 0.1], False, id="once"),
        pytest.param([0, 0.3, 0.4], [0, 0.1, 0.4], False, id="no-more"),
        pytest.param([0, 0.3, 0.4], [0, 0.4, 0.6], False, id="rises-more"),
        pytest.param([0, 0.3], [0, -0.2], False, id="one-evaluation"),
        pytest.param([0, 0, 0.3, 0.4], [0, 0.1, -0.2, -0.3], True, id="later"),
    ],
)
def test_a_warning_takes_a_gap_at_two_evaluations_in_a_row(rewards, gold, is_told):
    assert (gold_alarm(gaps(rewards, gold)) is not None) == is_told


def test_a_gap_is_told_in_shares_of_each_graders_range_with_its_interval():
    """The same gains where one grader goes to 10 and the other to 2."""
    found = gaps([0, 3, 4], [0, -0.2, 0.1], reward_range=(0, 10), gold_range=(0, 2))
    assert [gap.step for gap in found] == [5, 10]
    assert [(gap.reward, gap.gold) for gap in found] == [
        pytest.approx((0.3, -0.1)),
        pytest.approx((0.4, 0.05)),
    ]
    assert [gap.mean for gap in found] == pytest.approx([0.4, 0.35])
    assert "the grader says +0.4 and the gold grader +0.05 (gap 0.35, 95 % 0.35 to 0.35" in gold_alarm(found)


def test_a_gap_within_noise_is_none():
    noise = np.random.default_rng(1).normal(0, 0.3, (2, 12))
    gold = [
        look(0, 0),
        *(Look(5 * i + 5, 0.0, tuple(BASE + n - n.mean() + 0.28)) for i, n in enumerate(noise)),
    ]
    found = gold_gaps([look(0, 0), look(5, 0.3), look(10, 0.3)], gold, CONFIG)
    assert all(gap.low < 0 < gap.mean < gap.high for gap in found)
    assert gold_alarm(found) is None


def test_rows_that_one_of_the_two_left_out_are_in_no_gap():
    looks = [Look(0, 0.0, (0.0, 0.0, 0.0)), Look(5, 0.0, (1.0, None, 0.5)), Look(10, 0.0, (1.0, 1.0, 1.0))]
    gold = [Look(0, 0.0, (0.0, 0.0, None)), Look(5, 0.0, (0.5, 0.5, 0.5)), Look(10, 0.0, (None, None, 0.5))]
    (only,) = gold_gaps(looks, gold, CONFIG)
    assert (only.step, only.mean, only.reward, only.gold) == (5, 0.5, 1.0, 0.5)
    assert gold_gaps(looks[1:], gold[1:], CONFIG) == []


@pytest.mark.parametrize("kind", ["normal", "binary"])
def test_graders_that_gain_alike_are_rarely_told_apart(kind):
    """At most 5 % of runs are warned of; of 20 such runs more than 3 are in one of sixty cases."""
    rng = np.random.default_rng(5)
    assert sum(is_warned(*alike(kind, rng)) for _ in range(20)) <= 3


def alike(kind, rng, rows=12, evaluations=6):
    """Looks by two graders of the same worth: each errs by itself, at the base's evaluation too."""
    gain = np.linspace(0, 0.3, evaluations + 1)[:, None]
    if kind == "normal":
        worth = gain + rng.normal(0, 0.1, (evaluations + 1, rows))
        return worth + rng.normal(0, 0.3, worth.shape), worth + rng.normal(0, 0.2, worth.shape)
    right = np.clip(rng.beta(1, 2, rows) + gain, 0, 1)
    return (rng.random(right.shape) < right) * 1.0, (rng.random(right.shape) < right) * 1.0


def is_warned(rewards, gold):
    """Whether a run was warned at any of its evaluations."""
    looks, gold_looks = ([Look(i, 0.0, tuple(row)) for i, row in enumerate(of)] for of in (rewards, gold))
    return any(
        gold_alarm(gold_gaps(looks[: n + 1], gold_looks[: n + 1], CONFIG)) for n in range(2, len(looks))
    )


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
    assert len([note for note in notes if "the gold grader -" in note]) == 1
    assert len([note for note in notes if "10% of the gold grades failed" in note]) == 5
    values = recorder.history()[4]
    assert values["reward/gold_mean"] == pytest.approx(
        values["reward/gold_over_base"] + recorder.history()[0]["reward/gold_mean"]
    )
    assert values["reward/gold_stderr"] > 0
    (saved,) = [saved for (saved,) in recorder.all("checkpoint") if saved.step == 4]
    assert saved.extra["gold_reward"] == values["reward/gold_mean"]
    assert saved.extra["gold_gap"] == values["reward/gold_gap"] > saved.extra["gold_gap_low"]
