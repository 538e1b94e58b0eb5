"""Rewards of any size teach the same where the grader states no range, and noise beside them nothing."""

import pytest

from tests.workers.training.support import (
    FunctionGrader,
    ListRecorder,
    early_letters,
    make_config,
    make_rows,
    reward_groups,
)
from workers.training.advantages import compared_completions
from workers.training.endings import Endings
from workers.training.loop import train
from workers.training.rewards import rewards_of
from workers.training.state import Progress, read_progress, write_progress
from workers.training.trust.rewards_seen import RewardsSeen
from workers.training.trust.selection import Look

UNIT = 1e-6


def test_a_run_with_rewards_of_a_millionth_is_that_of_whole_ones(tiny, tmp_path):
    def history(unit):
        recorder, config = ListRecorder(), make_config(tiny, n_epochs=2, skip_flat_prompts=True)
        grader = FunctionGrader(lambda text, item: unit * early_letters(text, item))
        rows, valid = make_rows(*"abcdef"), make_rows(*"uvwxyz")
        train(config, rows, valid, grader, recorder, tmp_path / str(unit))
        return recorder.history()

    whole, small = history(1.0), history(UNIT)
    assert list(whole) == list(small) == list(range(7))
    for step in range(1, 7):
        assert small[step]["reward/mean"] == pytest.approx(UNIT * whole[step]["reward/mean"])
        names = {"reward/no_spread_share", "optim/grad_norm", "kl/reference"} & whole[step].keys()
        assert {name: small[step].get(name) for name in names} == pytest.approx(
            {name: whole[step][name] for name in names}, rel=1e-3, abs=1e-6
        )
    assert sum(row.get("optim/grad_norm", 0.0) > 0 for row in whole.values()) > 3


def test_a_slow_gain_of_small_rewards_is_not_level():
    rising = [Look(step, 0.1, (UNIT * (0.1 + 0.1 * step),) * 6) for step in range(6)]
    config = make_config("m", early_stop=True, early_stop_evals=4)
    for looks, ended in ((rising, None), ([rising[0]] * 6, "early_stop")):
        progress = Progress(step=5, looks=list(looks))
        progress.rewards_seen.note(rising[-1].rows)
        Endings(config, 40, ListRecorder()).end_if_level(progress)
        assert progress.ended == ended


@pytest.mark.parametrize(("earlier", "is_learnt_from"), [(1.0, False), (UNIT, True), (0.0, True)])
def test_what_is_noise_depends_on_how_large_rewards_were_before(tmp_path, earlier, is_learnt_from):
    progress = Progress()
    progress.rewards_seen.note([0.0, None, -earlier])
    write_progress(tmp_path, progress)
    seen = read_progress(tmp_path).rewards_seen
    rewards = rewards_of(reward_groups([[UNIT, 2 * UNIT]]))
    seen.note(rewards.values.flatten().tolist())
    config = seen.config_now(make_config("m"))
    assert bool(compared_completions(rewards, config).any()) == is_learnt_from


def test_a_range_that_was_stated_stays():
    seen = RewardsSeen(UNIT)
    config = make_config("m", reward_range=(0.0, 5.0))
    assert seen.config_now(config) is config
    assert seen.scale(config).least_spread == pytest.approx(5e-3)
