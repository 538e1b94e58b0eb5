"""Several seeds and a control in one job: what is trained, told, kept and delivered, and resuming."""

import json
from collections import Counter
from itertools import chain

import pytest

from graders import Grade, TokenUsage
from methods.halving import arm_seeds, rungs
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
from workers.training.base.errors import NonFinite, RunCancelled, RunPaused
from workers.training.checkpoints import checkpoint_folder
from workers.training.folders import read_manifest
from workers.training.loop import train
from workers.training.state import saved_steps, state_folder

pytestmark = pytest.mark.slow

ROWS = make_rows("one", "two", "three", "four")
VALID = make_rows("five", "six", "seven", "eight", "nine", "ten")
STEPS = 3 * 2 + 2 * 2 + 4 + 4
"""Three seeds to step 2, two to 4, one to 8, and a control of two evaluations."""


def config_of(tiny, **changes):
    fields = {"n_epochs": 4, "eval_interval": 2, "save_state_every": 1, "checkpoints_kept": 1, "n_seeds": 3}
    return make_config(tiny, **{**fields, "controls": ("random_reward",), **changes})


def go(config, run_dir, recorder=None, should_stop=lambda: False, **options):
    recorder = recorder or ListRecorder()
    grader = options.pop("grader", FunctionGrader(early_letters))
    return train(config, ROWS, VALID, grader, recorder, run_dir, should_stop, **options), recorder


def stop_after(steps):
    stops = iter([False] * steps + [True])
    return lambda: next(stops)


def told_of(result):
    """What a result says, without the texts of times and folders."""
    best = (result.best.step, result.best.kl, result.best.folder.name)
    return best, result.steps, result.trained_tokens, result.verdict, result.arms, result.controls


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    result, recorder = go(config_of(tiny), folder)
    return result, recorder, folder


def test_steps_are_numbered_through_the_rungs_of_all_arms(whole, tiny):
    result, recorder, _ = whole
    history = recorder.history()
    assert sorted(history) == list(range(STEPS + 1))
    assert result.steps == STEPS == config_of(tiny).job_steps(len(ROWS))
    seeds = arm_seeds(1, 3)
    told = [(history[step]["arm/seed"], history[step]["arm/step"]) for step in range(1, STEPS + 1)]
    assert told[:6] == [(seed, step) for seed in seeds for step in (1, 2)]
    second = {seed for seed, _ in told[6:10]}
    assert [step for _, step in told[6:10]] == [3, 4, 3, 4]
    assert len(second) == 2
    assert {seed for seed, _ in told[10:14]} < second
    assert [step for _, step in told[10:14]] == [5, 6, 7, 8]
    assert told[14:] == [(1, step) for step in (1, 2, 3, 4)]
    assert [step for step in history if "arm/is_control" in history[step]] == [15, 16, 17, 18]


def test_what_counts_since_the_job_began_goes_on_growing(whole):
    _, recorder, _ = whole
    for name in ("tokens/trained_total", "time/total"):
        series = recorder.series(name)
        assert series == sorted(series)
        assert len(series) == STEPS + 1


def test_the_base_is_measured_once_and_a_control_leaves_no_checkpoint(whole):
    result, recorder, _ = whole
    steps = [saved.step for (saved,) in recorder.all("checkpoint")]
    assert steps == [0, 2, 4, 6, 8, 10, 12, 14]
    assert len([entry for entry in recorder.all("rollouts") if entry[0] == "valid" and entry[1] == 0]) == 1
    assert [one.ended for one in result.controls] == ["finished"]
    assert result.controls[0].steps == 4
    assert result.controls[0].real_gain is not None


def test_the_verdict_is_over_the_looks_of_all_seeds_and_the_delivered_files_are_there(whole):
    result, recorder, _ = whole
    assert result.verdict.looks == 7
    assert {one.step for one in result.judged} == {2, 4, 6, 8, 10, 12, 14}
    assert read_manifest(result.best.folder)["step"] >= 0
    assert Counter(one.ended for one in result.arms) == {"halved": 2, "finished": 1}
    assert {one.steps: one.rung for one in result.arms} == {2: 1, 4: 2, 8: None}
    measured = {saved.step: saved.valid_reward for (saved,) in recorder.all("checkpoint")}
    for one in result.arms:
        assert one.reward == pytest.approx(measured[one.best_step])
        assert one.reward - one.gain == pytest.approx(measured[0])
    if result.best.step:
        (delivered,) = [one for one in result.arms if one.is_delivered]
        assert delivered == result.arms[0]


def test_a_seed_that_goes_on_in_the_next_rung_is_not_told_as_resumed(whole):
    _, recorder, _ = whole
    assert not [note for _, note in recorder.all("note") if "Resumed" in note]


def test_what_was_kept_is_told_and_the_rest_dropped(whole):
    _, recorder, folder = whole
    dropped = {step for (step,) in recorder.all("dropped")}
    there = {saved.step for (saved,) in recorder.all("checkpoint")} - dropped
    on_disk = [path for arm in (0, 1, 2) for path in (folder / f"arm_{arm}").glob("step_*")]
    assert len({path for path in on_disk if path.name != "step_000000"}) == len(there - {0})
    assert 0 in there


@pytest.mark.parametrize("steps", [2, 8, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 5, 13, 16))])
def test_stopped_after_any_step_and_resumed(whole, tiny, tmp_path, steps):
    result, recorder, _ = whole
    first = ListRecorder()
    with pytest.raises(RunCancelled):
        go(config_of(tiny), tmp_path, first, should_stop=stop_after(steps))
    resumed, second = go(config_of(tiny), tmp_path)
    assert {**first.history(), **second.history()} == recorder.history()
    assert min(step for step in second.history() if step) > 1
    assert told_of(resumed) == told_of(result)


@pytest.mark.parametrize(
    "messages", [40, 90, *(pytest.param(n, marks=pytest.mark.long) for n in (5, 21, 63, 120, 150, 171))]
)
def test_killed_at_any_message_and_resumed(whole, tiny, tmp_path, messages):
    """The recorder stands in for the kill: it comes between any two actions of the engine."""
    result, recorder, _ = whole
    first = KilledRecorder(messages)
    with pytest.raises(Killed):
        go(config_of(tiny), tmp_path, first)
    first._left = 10**6
    resumed, second = go(config_of(tiny), tmp_path)
    assert {**first.history(), **second.history()} == recorder.history()
    assert told_of(resumed) == told_of(result)
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("steps", [3, pytest.param(9, marks=pytest.mark.long)])
def test_resumed_elsewhere_from_the_published_state_alone(whole, tiny, tmp_path, steps):
    """As after the loss of a machine: states and checkpoints come back by the job's steps."""
    result, recorder, _ = whole
    published = Published(tmp_path / "storage")
    with pytest.raises(RunCancelled):
        go(config_of(tiny), tmp_path / "lost", published, should_stop=stop_after(steps))
    resumed, second = go(config_of(tiny), tmp_path / "storage")
    assert {**published.history(), **second.history()} == recorder.history()
    assert told_of(resumed) == told_of(result)


class Published(ListRecorder):
    """Copies states and checkpoints away as a service does."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def checkpoint(self, saved):
        super().checkpoint(saved)
        copy(saved.folder, checkpoint_folder(self.folder, saved.step))

    def state(self, step, folder):
        super().state(step, folder)
        copy(folder, state_folder(self.folder, step))


def copy(source, target):
    for file in source.rglob("*"):
        if file.is_file():
            (target / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / file.relative_to(source)).write_bytes(file.read_bytes())


@pytest.mark.long
def test_paused_in_a_rung_and_resumed(whole, tiny, tmp_path):
    result, recorder, _ = whole
    first = ListRecorder()
    with pytest.raises(RunPaused):
        go(config_of(tiny), tmp_path, first, should_pause=stop_after(3))
    ((snapshot,),) = first.all("snapshot")
    assert snapshot.step == 3
    resumed, second = go(config_of(tiny), tmp_path)
    assert {**first.history(), **second.history()} == recorder.history()
    assert told_of(resumed) == told_of(result)
    assert (3,) in second.all("dropped")


@pytest.mark.long
def test_a_damaged_state_is_noticed_and_the_one_before_is_used(whole, tiny, tmp_path):
    result, _, _ = whole
    with pytest.raises(RunCancelled):
        go(config_of(tiny), tmp_path, should_stop=stop_after(8))
    assert saved_steps(tmp_path) == [8, 7]
    damaged = state_folder(tmp_path, 8) / "arms.json"
    damaged.unlink()
    resumed, second = go(config_of(tiny), tmp_path)
    assert any("state_000008" in message for _, message in second.all("note"))
    assert min(step for step in second.history() if step) == 8
    assert told_of(resumed) == told_of(result)


def test_grades_of_a_control_are_those_of_its_step_dealt_out_anew(tiny, tmp_path):
    config = config_of(tiny, n_seeds=1, n_epochs=4, eval_interval=2)
    _, recorder = go(config, tmp_path)
    total = config.total_steps(len(ROWS))
    real, control = [
        list(groups)
        for split, step, _, groups in recorder.all("rollouts")
        if (split, step) in (("train", 1), ("control", total + 1))
    ]
    texts = [[c.text for c in group.completions] for group in real]
    assert texts == [[c.text for c in group.completions] for group in control]  # the same weights and draws
    rewards = [[grade.reward for grade in group.grades] for group in real]
    dealt = [[grade.reward for grade in group.grades] for group in control]
    assert dealt != rewards
    assert Counter(chain(*dealt)) == Counter(chain(*rewards))


def test_a_budget_is_that_of_all_arms_together(tiny, tmp_path):
    def judged(text, item):
        return Grade(early_letters(text, item), usage={"judge": TokenUsage(10, 1, 0, 1)})

    config = config_of(tiny, max_judge_calls=100, controls=())
    result, recorder = go(config, tmp_path, grader=FunctionGrader(judged))
    calls = recorder.series("usage/total/calls/judge")
    assert calls == sorted(calls)
    assert 100 <= calls[-1] < 100 + 8 + 6 + 1
    assert result.steps < STEPS - 4
    assert "max_judge_calls" in {one.ended for one in result.arms}
    assert result.best.folder.exists()
    json.dumps([one._asdict() for one in result.arms])


@pytest.mark.long
def test_an_early_end_of_one_arm_lets_the_rung_go_on(tiny, tmp_path):
    config = config_of(tiny, early_stop=True, early_stop_evals=2, learning_rate=1e-9, controls=(), n_seeds=2)
    config = config.model_copy(update={"n_epochs": 40})
    result, recorder = go(config, tmp_path)
    assert [one.ended for one in result.arms].count("early_stop") >= 1
    numbers = {}
    for step, values in recorder.history().items():
        if step:
            numbers.setdefault(values["arm/seed"], []).append(step)
    first, second = (numbers[seed] for seed in arm_seeds(1, 2))
    assert first[-1] < 40, "the first seed has ended within its rung, whose other numbers stay its own"
    assert second[0] == 41 == rungs(80, 2, 2)[0].end + 1
    newest, *_ = saved_steps(tmp_path)
    assert newest == result.steps == len(first) + len(second)
    assert read_manifest(state_folder(tmp_path, newest))["last_number"] == second[-1]
    assert all(one.steps >= 4 for one in result.arms)
    assert result.verdict.step == 0


def diverge(monkeypatch, recorder, runs):
    """Makes losses no numbers in the n-th runs of a job: each seed has one a rung."""
    plain = update.policy_loss

    def policy_loss(*args, **options):
        found = plain(*args, **options)
        begun = recorder.told.count(("phase", "loading"))
        return found._replace(loss=found.loss * float("nan")) if begun in runs else found

    monkeypatch.setattr(update, "policy_loss", policy_loss)


@pytest.mark.parametrize("runs", [{6}, pytest.param({4, 5, 6}, marks=pytest.mark.long)])
def test_where_all_that_still_race_diverge_the_others_checkpoints_decide(tiny, tmp_path, monkeypatch, runs):
    recorder = ListRecorder()
    diverge(monkeypatch, recorder, runs)
    result, _ = go(config_of(tiny, n_epochs=8, eval_interval=4, controls=()), tmp_path, recorder)
    ended = Counter(one.ended for one in result.arms)
    assert ended["non_finite"] == len(runs) - (len(runs) > 1)
    assert ended["halved"] == 3 - ended["non_finite"]
    (said,) = [note for _, note in recorder.all("note") if "have measured decides" in note]
    assert said.startswith("Seed ")
    assert result.verdict.looks == len({saved.step for (saved,) in recorder.all("checkpoint")} - {0})
    assert result.best.folder.exists()


def test_a_job_of_which_every_seed_diverges_fails(tiny, tmp_path, monkeypatch):
    recorder = ListRecorder()
    diverge(monkeypatch, recorder, range(100))
    with pytest.raises(NonFinite):
        go(config_of(tiny, n_epochs=8, eval_interval=4, controls=()), tmp_path, recorder)


def test_a_seed_that_diverges_is_out_and_the_others_go_on(tiny, tmp_path, monkeypatch):
    recorder = ListRecorder()
    diverge(monkeypatch, recorder, {2})
    config = config_of(tiny, n_epochs=8, eval_interval=4, controls=())
    result, _ = go(config, tmp_path, recorder)
    ended = {one.seed: one.ended for one in result.arms}
    assert sorted(ended.values()) == ["finished", "halved", "non_finite"]
    assert ended[arm_seeds(1, 3)[1]] == "non_finite"
    notes = [message for _, message in recorder.all("note")]
    assert any("It is out; the other seeds go on." in note for note in notes)
    assert result.best.folder.exists()
    again, second = go(config, tmp_path)
    assert second.all("metrics") == []
    assert told_of(again) == told_of(result)
