"""A run that goes wrong is rolled back or ended, and a kill at any moment changes nothing of that."""

import json
import math

import pytest
from safetensors.torch import load_file

from graders import Grade
from methods import metrics as names
from tests.workers.training.support import (
    FunctionGrader,
    Killed,
    KilledRecorder,
    ListRecorder,
    early_letters,
    make_config,
    make_rows,
)
from workers.training import update
from workers.training.base.errors import NonFinite, RunCancelled
from workers.training.folders import sha256
from workers.training.loop import train
from workers.training.model.policy import Policy
from workers.training.state import GOOD

ROWS, VALID = make_rows("one", "two", "three"), make_rows("four", "five", "six", "seven", "eight")
HOT = {"learning_rate": 0.3, "guard": "act", "eval_interval": 2, "save_state_every": 3, "n_epochs": 4}
"""Thirty times the rate at which the tiny model learns."""


def go(config, run_dir, recorder=None, should_stop=lambda: False, grade=early_letters):
    recorder = recorder or ListRecorder()
    return train(config, ROWS, VALID, FunctionGrader(grade), recorder, run_dir, should_stop), recorder


def kinds(recorder):
    return [(action.step, action.kind) for (action,) in recorder.all("action")]


def final_weights(run_dir):
    (folder,) = run_dir.glob("state_*")
    return {file.name: sha256(file) for file in folder.glob("*.safetensors")}


def told(recorder):
    return {action.step: action for (action,) in recorder.all("action")}


# --- what is done ---------------------------------------------------------------------------------------


def test_a_rate_thirty_times_too_high_is_rolled_back_and_no_wreck_is_kept(sharp, tmp_path):
    result, recorder = go(make_config(sharp, **HOT), tmp_path)
    _, wrecked = go(make_config(sharp, **{**HOT, "guard": "off"}), tmp_path / "off")
    assert max(wrecked.series(names.KL_PROBE_MEAN)) > 2
    assert kinds(recorder)[0] == (2, "roll_back")
    history = recorder.history()
    for (saved,) in recorder.all("checkpoint"):
        assert saved.kl <= history[saved.step][names.GUARD_KL_LIMIT]
    rates = recorder.series(names.LEARNING_RATE)
    assert min(rates) == pytest.approx(0.3 * history[8][names.GUARD_LR_SCALE])
    assert history[2][names.GUARD_ROLLBACKS] == 1.0
    assert history[2][names.GUARD_LR_SCALE] == 0.5
    assert result.best.kl <= 2


def test_after_a_rollback_the_policy_is_the_good_one_again_and_the_next_batch_is_its_own(sharp, tmp_path):
    config = make_config(sharp, **HOT)
    _, recorder = go(config, tmp_path)
    history = recorder.history()
    rolled = [step for step, kind in kinds(recorder) if kind == "roll_back"]
    base_entropy = history[1][names.ENTROPY_MEAN]
    assert rolled
    for step in rolled:
        assert history[step + 1][names.KL_REFERENCE] == 0.0  # back at the base, whose KL to itself is 0
        assert history[step + 1][names.ENTROPY_MEAN] == pytest.approx(base_entropy, rel=0.2)


def test_a_run_whose_rollbacks_are_used_up_ends_early_and_stays_ended(sharp, tmp_path):
    config = make_config(sharp, **HOT, guard_kl=0.3, guard_rollbacks=1)
    result, recorder = go(config, tmp_path)
    assert [kind for _, kind in kinds(recorder)] == ["roll_back", "stop"]
    assert result.steps == kinds(recorder)[-1][0] < config.total_steps(len(ROWS))
    assert result.best.step == 0
    again, silent = go(config, tmp_path)
    assert (again.steps, again.best.step, silent.all("metrics")) == (result.steps, 0, [])


@pytest.mark.slow
def test_with_warn_nothing_is_changed_and_with_off_nothing_is_said(sharp, tmp_path):
    """Warnings take probes of their own, which no random number of the run follows from."""
    histories = {}
    for guard in ("off", "warn"):
        _, recorder = go(make_config(sharp, **{**HOT, "guard": guard}), tmp_path / guard)
        histories[guard] = {
            step: {
                name: value
                for name, value in values.items()
                if not name.startswith(("guard/", "kl/probe", "kl/answer"))
            }
            for step, values in recorder.history().items()
        }
        actions = [action for (action,) in recorder.all("action")]
        assert bool(actions) is (guard == "warn")
        assert not any(action.is_done for action in actions)
    assert histories["off"] == histories["warn"]
    assert final_weights(tmp_path / "off") == final_weights(tmp_path / "warn")


class Broken:
    """A loss that is no number in some steps."""

    def __init__(self, monkeypatch, *steps):
        self._steps, self._real = steps, update.policy_loss
        self._calls = 0
        monkeypatch.setattr(update, "policy_loss", self)

    def __call__(self, *args, **kwargs):
        self._calls += 1
        tokens = self._real(*args, **kwargs)
        return tokens._replace(loss=tokens.loss * math.nan) if self._calls in self._steps else tokens


def test_updates_that_are_not_finite_are_skipped_then_rolled_back(sharp, tmp_path, monkeypatch):
    Broken(monkeypatch, 2, 4)
    config = make_config(sharp, **{**HOT, "learning_rate": 1e-2})
    _, recorder = go(config, tmp_path)
    assert kinds(recorder) == [(2, "skip"), (4, "roll_back")]
    assert told(recorder)[4].reason == "non_finite"


def test_a_run_without_a_single_finite_update_fails(sharp, tmp_path, monkeypatch):
    Broken(monkeypatch, *range(1, 100))
    with pytest.raises(NonFinite):
        go(make_config(sharp, **HOT), tmp_path)


def test_a_grader_that_only_jitters_moves_nothing_and_calls_for_nothing(sharp, tmp_path):
    """A constant and noise a hundred thousand times smaller: noise is no reward, so nothing is learnt."""
    seen = iter(range(10**6))

    def jitter(text, item):
        return Grade(0.5 + 1e-5 * (next(seen) % 7) / 7)

    config = make_config(sharp, **{**HOT, "learning_rate": 1e-2}, reward_range=(0.0, 1.0))
    _, recorder = go(config, tmp_path, grade=jitter)
    assert recorder.all("action") == []
    assert max(recorder.series(names.KL_PROBE_MEAN)) == 0.0


# --- exact resume ---------------------------------------------------------------------------------------

LATER = {"guard": "act", "eval_interval": 2, "save_state_every": 3}
"""Good at step 2, and rolled back to it once it has gone too far."""
RUNS = {
    "lora": {**LATER, "learning_rate": 0.015, "guard_kl": 0.25, "kl_target": 0.1},
    "full, sampled ahead": {
        **LATER,
        "adapter": "full",
        "learning_rate": 0.002,
        "guard_kl": 0.2,
        "async_steps": 1,
    },
}


@pytest.fixture(scope="module", params=RUNS)
def whole(request, sharp, tmp_path_factory):
    config = make_config(sharp, **RUNS[request.param], n_epochs=4)
    folder = tmp_path_factory.mktemp("whole")
    result, recorder = go(config, folder)
    rolled = [step for step, kind in kinds(recorder) if kind == "roll_back"]
    assert rolled, recorder.series(names.KL_PROBE_MEAN)
    return config, result, recorder, final_weights(folder), rolled[0]


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, *(pytest.param(n, marks=pytest.mark.long) for n in (-1, 1))])
def test_stopped_around_a_rollback_and_resumed(whole, tmp_path, after):
    config, result, recorder, weights, rolled = whole
    stops = iter([False] * (rolled + after) + [True])
    first = ListRecorder()
    with pytest.raises(RunCancelled):
        go(config, tmp_path, first, should_stop=lambda: next(stops))
    resumed, second = go(config, tmp_path)
    assert {**first.history(), **second.history()} == recorder.history()
    assert {**told(first), **told(second)} == told(recorder)
    assert final_weights(tmp_path) == weights
    assert (resumed.best.step, resumed.steps) == (result.best.step, result.steps)


@pytest.mark.slow
def test_killed_between_an_action_and_the_rollback_and_resumed(whole, tmp_path):
    config, _, recorder, weights, _ = whole
    at = next(i for i, entry in enumerate(recorder.told) if entry[0] == "action")
    first = KilledRecorder(at + 1)
    with pytest.raises(Killed):
        go(config, tmp_path, first)
    first._left = 10**6
    _, second = go(config, tmp_path)
    assert {**first.history(), **second.history()} == recorder.history()
    assert {**told(first), **told(second)} == told(recorder)
    assert final_weights(tmp_path) == weights


@pytest.mark.long
def test_the_good_copy_is_saved_only_where_it_differs(whole, tmp_path):
    config, _, _, _, rolled = whole
    good = 0
    for stop in range(1, rolled):
        stops = iter([False] * stop + [True])
        folder = tmp_path / str(stop)
        with pytest.raises(RunCancelled):
            go(config, folder, should_stop=lambda: next(stops))  # noqa: B023
        state = folder / f"state_{stop:06d}"
        good = json.loads((state / "progress.json").read_text())["guard"]["good_step"]
        assert (state / GOOD).exists() is (good != stop)
    assert good > 0
    saved = load_file(state / GOOD)
    assert {name for name in saved if name.startswith("weights/")} == {
        f"weights/{name}" for name in Policy.load(config).trained()
    }
