"""Seeds side by side in real processes make the job that they make in turn, also after kills and stops."""

import itertools
import math
import os
import signal
import time
from functools import partial

import pytest

from graders import Grade, TokenUsage
from methods.halving import arm_seeds
from tests.workers.training.arms.test_arms import ROWS, VALID, config_of, told_of
from tests.workers.training.support import FunctionGrader, ListRecorder, early_letters
from workers.jobs.seats import SeedProcess
from workers.training import update
from workers.training.arms.beside import ArmLost, Seats
from workers.training.base.errors import RunCancelled, RunPaused
from workers.training.folders import sha256
from workers.training.loop import train
from workers.training.state import saved_steps

pytestmark = pytest.mark.slow

TRAINED = {row.item["answer"] for row in ROWS}
GRADES_OF_A_STEP = 2 * 4
TWO = {"n_seeds": 2, "controls": ()}
"""Two seeds to step 4, one to 8."""
SEEDS = arm_seeds(1, 2)
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}
ENVIRONMENT["CHERRY_BROKER_URL"] = "memory://"
"""Of processes that train; they ask neither."""

TOTALS = (
    "tokens/trained_total",
    "time/",
    "usage/total",
    "grades/train_seconds_mean",
    "grades/valid_seconds_mean",
)
"""What is counted over all seeds until now, or a time: it depends on who came first."""


def graders(grade=early_letters, _remark=print):
    return FunctionGrader(grade), None


class Meeting:
    """Grades as `early_letters` does; processes wait for each other in their first step and in the second.

    Nobody waits any more once there is a file `free`.
    """

    def __init__(self, folder):
        self.folder = folder
        self.calls = itertools.count()

    def __call__(self, text, item):
        if item["answer"] in TRAINED and (call := next(self.calls)) in (0, GRADES_OF_A_STEP):
            (self.folder / f"{call}-{os.getpid()}").touch()
            while len(list(self.folder.glob(f"{call}-*"))) < 2 and not (self.folder / "free").exists():
                time.sleep(0.02)
        return early_letters(text, item)

    def end(self):
        (self.folder / "free").touch()


def judged(text, item):
    return Grade(early_letters(text, item), usage={"judge": TokenUsage(10, 1, 0, 1)})


def graders_of_a_fault(folder, fault, _remark):
    """As `graders`; in the second process that calls it, updates go wrong."""
    folder.mkdir(exist_ok=True)
    (folder / str(os.getpid())).touch()
    plain = update.policy_loss

    def wrong(*args, **options):
        if fault is not None:
            raise fault
        found = plain(*args, **options)
        return found._replace(loss=found.loss * float("nan"))

    if len(list(folder.iterdir())) == 2:
        update.policy_loss = wrong
    return graders()


class Beside:
    """Trains side by side; keeps the processes that it has started."""

    def __init__(self, grade=early_letters, devices=2, patience=math.inf):
        self.grade, self.devices, self.patience = grade, devices, patience
        self.started = []
        self.seats = []
        self.most = 0

    def start(self, seat):
        self.seats.append(seat)
        self.started.append(SeedProcess(ENVIRONMENT))
        self.most = max(self.most, sum(not one.is_gone() for one in self.started))
        return self.started[-1]

    def go(self, config, folder, recorder=None, make=None, **options):
        recorder = recorder or ListRecorder()
        seats = Seats(self.devices, self.start, make or partial(graders, self.grade), self.patience)
        rows = (config.model_copy(update={"processes": self.devices}), ROWS, VALID)
        result = train(*rows, FunctionGrader(self.grade), recorder, folder, seats=seats, **options)
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
    """Does something when both seeds have made a step of theirs: of the first, neither has made its third."""

    def __init__(self, then, after=1):
        super().__init__()
        self.then, self.after = then, after
        self.waited = set(SEEDS)

    def metrics(self, step, epoch, values):
        super().metrics(step, epoch, values)
        if step and self.waited and values["arm/step"] == self.after:
            self.waited.discard(int(values["arm/seed"]))
            if not self.waited:
                self.then()


@pytest.fixture(scope="module")
def turns(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("turns")
    result, recorder = in_turn(config_of(tiny, **TWO), folder)
    return result, recorder, folder


def assert_same(turns, result, folder, *recorders):
    wanted, recorder, elsewhere = turns
    assert history(*recorders) == history(recorder)
    assert told_of(result) == told_of(wanted)
    assert weights(folder) == weights(elsewhere) != {}


@pytest.mark.long
def test_two_seeds_are_the_same_as_in_turn(turns, tiny, tmp_path):
    beside = Beside()
    result, recorder = beside.go(config_of(tiny, **TWO), tmp_path)
    assert_same(turns, result, tmp_path, recorder)
    assert rollouts(recorder) == rollouts(turns[1])
    assert (beside.most, beside.seats) == (2, [0, 1, 0])
    assert recorder.series("tokens/trained_total")[-1] == turns[1].series("tokens/trained_total")[-1]
    assert saved_steps(tmp_path) == saved_steps(turns[2])


@pytest.mark.long
def test_more_seeds_than_devices_and_a_control_are_the_same_as_in_turn(tiny, tmp_path):
    config = config_of(tiny)
    turns = *in_turn(config, tmp_path / "turns"), tmp_path / "turns"
    beside = Beside()
    result, recorder = beside.go(config, tmp_path / "beside")
    assert_same(turns, result, tmp_path / "beside", recorder)
    assert rollouts(recorder) == rollouts(turns[1])
    assert beside.most == 2
    assert len(beside.started) == 3 + 2 + 1 + 1
    (_, first), *_ = recorder.all("note")
    assert "2 seeds train side by side" in first


@pytest.mark.long
def test_a_process_that_is_killed_ends_the_attempt_and_nothing_else(turns, tiny, tmp_path):
    meeting = Meeting(tmp_path)
    beside = Beside(meeting)

    def kill():
        os.kill(process_of(beside.started[1]), signal.SIGKILL)
        meeting.end()

    recorder, folder = Disturbed(kill), tmp_path / "job"
    with pytest.raises(ArmLost, match=rf"Seed {SEEDS[1]}: .*signal 9, perhaps for lack of memory") as lost:
        beside.go(config_of(tiny, **TWO), folder, recorder)
    assert lost.value.code == -signal.SIGKILL
    made = {values["arm/seed"]: values["arm/step"] for step, _, values in recorder.all("metrics") if step}
    newest, *_ = saved_steps(folder)
    assert newest == made[SEEDS[0]], "the other one has saved its steps"
    result, second = Beside().go(config_of(tiny, **TWO), folder)
    assert 0 not in second.history()
    assert_same(turns, result, folder, recorder, second)


@pytest.mark.long
def test_a_process_that_hangs_is_taken_for_lost_though_the_others_go_on(tiny, tmp_path):
    meeting = Meeting(tmp_path)
    beside = Beside(meeting, patience=60)

    def hang():
        os.kill(process_of(beside.started[1]), signal.SIGSTOP)
        meeting.end()

    with pytest.raises(ArmLost, match=rf"Seed {SEEDS[1]}: its process said nothing for 60 seconds"):
        beside.go(config_of(tiny, **TWO), tmp_path / "job", Disturbed(hang))
    assert saved_steps(tmp_path / "job")[0] == 4, "the other one has made its rung"
    assert not any(process_of(one) for one in beside.started)


class AllKilled(BaseException):
    """Stands for a kill of the process that keeps the job: nothing catches it."""


@pytest.mark.long
@pytest.mark.parametrize("then", ["side by side", "in turn"])
def test_all_are_killed_and_the_job_goes_on(turns, tiny, tmp_path, then):
    beside = Beside(Meeting(tmp_path))

    def kill():
        for one in beside.started:
            if (number := process_of(one)) is not None:
                os.kill(number, signal.SIGKILL)
        raise AllKilled

    recorder, folder = Disturbed(kill, after=2), tmp_path / "job"
    with pytest.raises(AllKilled):
        beside.go(config_of(tiny, **TWO), folder, recorder)
    config = config_of(tiny, **TWO)
    result, second = Beside().go(config, folder) if then == "side by side" else in_turn(config, folder)
    assert not {0, 1, 5} & set(second.history()), "both had saved their first step before they made the next"
    assert_same(turns, result, folder, recorder, second)


@pytest.mark.long
@pytest.mark.parametrize("how", ["stop", "pause"])
def test_a_stop_and_a_pause_reach_all(turns, tiny, tmp_path, how):
    meeting = Meeting(tmp_path)
    recorder, folder = Disturbed(meeting.end), tmp_path / "job"
    asked = {f"should_{how}": lambda: not recorder.waited}
    with pytest.raises(RunCancelled if how == "stop" else RunPaused):
        Beside(meeting).go(config_of(tiny, **TWO), folder, recorder, **asked)
    made = {values["arm/seed"]: values["arm/step"] for step, _, values in recorder.all("metrics") if step}
    assert sorted(made.values()) in ([1, 1], [1, 2])
    assert saved_steps(folder)[0] == sum(made.values())
    snapshots = {saved.extra["arm_seed"] for (saved,) in recorder.all("snapshot")}
    made_no_checkpoint = {seed for seed, step in made.items() if step % 2}
    assert snapshots == (made_no_checkpoint if how == "pause" else set())
    result, second = Beside().go(config_of(tiny, **TWO), folder)
    assert not set(recorder.history()) & set(second.history()), "nothing was made twice"
    assert_same(turns, result, folder, recorder, second)


@pytest.mark.long
@pytest.mark.parametrize("on_budget", ["finish", "pause"])
def test_a_budget_is_that_of_all_together(tiny, tmp_path, on_budget):
    config = config_of(tiny, **TWO, max_judge_calls=30, on_budget=on_budget)
    recorder = ListRecorder()
    go = partial(Beside(judged).go, config, tmp_path, recorder)
    if on_budget == "pause":
        with pytest.raises(RunPaused):
            go()
        assert len(recorder.all("pausing")) == 1
        return
    result, _ = go()
    assert {one.ended for one in result.arms} <= {"max_judge_calls"}
    assert result.steps < 8
    assert result.best.folder.exists()


@pytest.mark.long
def test_a_seed_that_diverges_is_out_and_the_other_goes_on(tiny, tmp_path):
    config = config_of(tiny, **TWO, n_epochs=8, eval_interval=4)
    make = partial(graders_of_a_fault, tmp_path / "faults", None)
    result, recorder = Beside().go(config, tmp_path / "job", make=make)
    assert {one.seed: one.ended for one in result.arms} == {SEEDS[0]: "finished", SEEDS[1]: "non_finite"}
    notes = [message for _, message in recorder.all("note")]
    assert any("It is out; the other seeds go on." in note for note in notes)
    again, second = in_turn(config, tmp_path / "job")
    assert second.all("metrics") == []
    assert told_of(again) == told_of(result)


@pytest.mark.long
def test_an_error_in_one_process_lets_the_other_save_and_is_told(tiny, tmp_path):
    make = partial(graders_of_a_fault, tmp_path / "faults", ValueError("made up"))
    with pytest.raises(ArmLost, match=rf"Seed {SEEDS[1]}: ValueError: made up") as lost:
        Beside().go(config_of(tiny, **TWO), tmp_path / "job", make=make)
    assert lost.value.code == 1
    assert saved_steps(tmp_path / "job")[0] >= 1
