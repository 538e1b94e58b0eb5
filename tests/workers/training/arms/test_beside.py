"""Seeds that train side by side in real processes make the same job as in turn, also after kills and stops."""

import os
import signal
from functools import partial

import pytest

from graders import Grade, TokenUsage
from methods.halving import arm_seeds
from tests.workers.training.arms.test_arms import ROWS, VALID, config_of, told_of
from tests.workers.training.support import FunctionGrader, ListRecorder, early_letters
from workers.jobs.seats import SeedProcess
from workers.training.arms.beside import ArmLost, Seats
from workers.training.base.errors import FlatReward, RunCancelled, RunPaused
from workers.training.folders import read_manifest, sha256
from workers.training.loop import train
from workers.training.state import saved_steps, state_folder

pytestmark = pytest.mark.slow

TOTALS = (
    "tokens/trained_total",
    "time/",
    "usage/total",
    "grades/train_seconds_mean",
    "grades/valid_seconds_mean",
)
"""What is counted over all seeds until now, or a time: it depends on who came first."""


def graders(grade=early_letters):
    return FunctionGrader(grade), None


def judged(text, item):
    return Grade(early_letters(text, item), usage={"judge": TokenUsage(10, 1, 0, 1)})


def level(text, item):  # noqa: ARG001
    return 0.5


class Beside:
    """Trains side by side; keeps the processes that it has started."""

    def __init__(self, grade=early_letters, devices=2):
        self.grade, self.devices = grade, devices
        self.started = []
        self.seats = []

    def start(self, seat):
        self.seats.append(seat)
        self.started.append(SeedProcess({"OMP_NUM_THREADS": "1"}))
        return self.started[-1]

    def go(self, config, folder, recorder=None, **options):
        recorder = recorder or ListRecorder()
        seats = Seats(self.devices, self.start, partial(graders, self.grade))
        rows = (config.model_copy(update={"processes": self.devices}), ROWS, VALID)
        result = train(*rows, graders(self.grade)[0], recorder, folder, seats=seats, **options)
        assert not any(process_of(one) for one in self.started)
        return result, recorder


def process_of(companion):
    """The number of a process, as long as it runs."""
    return None if companion.is_gone() else companion._child.pid


def in_turn(config, folder, grade=early_letters):
    recorder = ListRecorder()
    return train(config, ROWS, VALID, FunctionGrader(grade), recorder, folder), recorder


def history(*recorders):
    told = {}
    for recorder in recorders:
        told |= recorder.history()
    return {
        step: {name: value for name, value in values.items() if not name.startswith(TOTALS)}
        for step, values in told.items()
    }


def weights(folder):
    """Hashes of all checkpoints' weights that are there, by arm and step."""
    return {
        str(file.relative_to(folder)): sha256(file) for file in folder.glob("arm_*/step_*/*/*.safetensors")
    }


def rollouts(recorder):
    """What was sampled, by split and step."""
    found = {}
    for split, step, _, groups in recorder.all("rollouts"):
        texts = [
            (c.text, grade.value)
            for group in groups
            for c, grade in zip(group.completions, group.grades, strict=True)
        ]
        assert (split, step) not in found
        found[split, step] = texts
    return found


class Disturbed(ListRecorder):
    """Does something when it is told of steps of all of the given seeds."""

    def __init__(self, seeds, step, then):
        super().__init__()
        self.waited, self.step, self.then = set(seeds), step, then

    def metrics(self, step, epoch, values):
        super().metrics(step, epoch, values)
        if values.get("arm/step", 0) >= self.step:
            was = len(self.waited)
            self.waited.discard(int(values["arm/seed"]))
            if was and not self.waited:
                self.then()


@pytest.fixture(scope="module")
def turns(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("turns")
    result, recorder = in_turn(config_of(tiny), folder)
    return result, recorder, folder


def assert_same(turns, result, folder, *recorders):
    wanted, recorder, elsewhere = turns
    assert history(*recorders) == history(recorder)
    assert told_of(result) == told_of(wanted)
    assert weights(folder) == weights(elsewhere) != {}


def test_the_job_is_the_same_as_in_turn(turns, tiny, tmp_path):
    beside = Beside()
    result, recorder = beside.go(config_of(tiny), tmp_path)
    assert_same(turns, result, tmp_path, recorder)
    assert rollouts(recorder) == rollouts(turns[1])
    seeds = [values["arm/seed"] for _, _, values in recorder.all("metrics") if "arm/seed" in values]
    changes = sum(one != other for one, other in zip(seeds, seeds[1:], strict=False))
    assert changes > 7, "of seeds that train in turn there are seven"
    assert set(beside.seats) == {0, 1}
    assert len(beside.started) == 3 + 2 + 1 + 1
    assert recorder.series("tokens/trained_total")[-1] == turns[1].series("tokens/trained_total")[-1]
    assert sorted(saved_steps(tmp_path)) == sorted(saved_steps(turns[2]))
    (_, first), *_ = recorder.all("note")
    assert "2 seeds train side by side" in first


def test_a_process_that_is_killed_ends_the_attempt_and_nothing_else(turns, tiny, tmp_path):
    beside = Beside()
    seeds = arm_seeds(1, 3)[:2]
    recorder = Disturbed(seeds, 1, lambda: os.kill(process_of(beside.started[1]), signal.SIGKILL))
    with pytest.raises(ArmLost, match=rf"Seed {seeds[1]}: .*signal 9, perhaps for lack of memory") as lost:
        beside.go(config_of(tiny), tmp_path, recorder)
    assert lost.value.code == -signal.SIGKILL
    assert not any(process_of(one) for one in beside.started)
    newest, *_ = saved_steps(tmp_path)
    assert read_manifest(state_folder(tmp_path, newest))["step"] >= 2, "the other one has saved its steps"
    again = Beside()
    result, second = again.go(config_of(tiny), tmp_path)
    assert min(step for step in second.history() if step) > 1
    assert_same(turns, result, tmp_path, recorder, second)


class AllKilled(BaseException):
    """Stands for a kill of the process that keeps the job: nothing catches it."""


@pytest.mark.parametrize("then", ["side by side", "in turn"])
def test_all_are_killed_and_the_job_goes_on(turns, tiny, tmp_path, then):
    beside = Beside()

    def kill():
        for one in beside.started:
            os.kill(process_of(one), signal.SIGKILL)
        raise AllKilled

    recorder = Disturbed(arm_seeds(1, 3)[:2], 2, kill)
    with pytest.raises(AllKilled):
        beside.go(config_of(tiny), tmp_path, recorder)
    result, second = (
        Beside().go(config_of(tiny), tmp_path)
        if then == "side by side"
        else in_turn(config_of(tiny), tmp_path)
    )
    assert {step for step in second.history() if step} < set(turns[1].history())
    assert_same(turns, result, tmp_path, recorder, second)


@pytest.mark.parametrize("how", ["stop", "pause"])
def test_a_stop_and_a_pause_reach_all(turns, tiny, tmp_path, how):
    asked = []
    recorder = Disturbed(arm_seeds(1, 3)[:2], 1, lambda: asked.append(True))
    options = {f"should_{how}": lambda: bool(asked)}
    with pytest.raises(RunCancelled if how == "stop" else RunPaused):
        Beside().go(config_of(tiny, n_epochs=8, eval_interval=4), tmp_path, recorder, **options)
    steps = {
        values["arm/seed"]: values["arm/step"]
        for _, _, values in recorder.all("metrics")
        if "arm/seed" in values
    }
    assert all(step < 4 for step in steps.values())
    assert len(recorder.all("snapshot")) == (len(steps) if how == "pause" else 0)
    result, second = Beside().go(config_of(tiny, n_epochs=8, eval_interval=4), tmp_path)
    whole, alone = in_turn(config_of(tiny, n_epochs=8, eval_interval=4), tmp_path / "turns")
    assert history(recorder, second) == history(alone)
    assert told_of(result) == told_of(whole)
