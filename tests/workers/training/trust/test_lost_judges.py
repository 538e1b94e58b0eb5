"""A run that loses its judge pauses, wherever it is, and goes on with the history of one that never did."""

import threading

import pytest

from graders import Failure, FailureKind, Grade
from tests.workers.training.support import FunctionGrader, ListRecorder, early_letters
from tests.workers.training.test_resume import AHEAD, ROWS, VALID, config_of, final_weights, stop_after
from workers.training.base.errors import JudgeLost, RunPaused
from workers.training.loop import train

pytestmark = pytest.mark.slow

LOST = "The judge 'judge' has answered nothing for 180 seconds; its last error: refused"


class Losing:
    """Grades as `early_letters` does, and is lost after so many grades; counts what was graded."""

    def __init__(self, after=10**9):
        self.left = after
        self.graded = 0
        self._lock = threading.Lock()

    def __call__(self, text, item):
        with self._lock:
            self.left -= 1
            if self.left < 0:
                return Grade(None, Failure(FailureKind.MODEL_SERVER, "refused", LOST))
            self.graded += 1
        return early_letters(text, item)


def go(config, run_dir, judge=None, gold=None, recorder=None, **options):
    recorder = recorder or ListRecorder()
    graders = [FunctionGrader(judge or Losing()), FunctionGrader(gold or Losing())]
    result = train(config, ROWS, VALID, graders[0], recorder, run_dir, gold_grader=graders[1], **options)
    return result, recorder


@pytest.fixture(scope="module", params=["plain", pytest.param("ahead", marks=pytest.mark.long)])
def whole(request, tiny, tmp_path_factory):
    """A run whose judges are never lost: config, grades of either, history, final state."""
    config = config_of(tiny, **(AHEAD if request.param == "ahead" else {}))
    folder, judge, gold = tmp_path_factory.mktemp("whole"), Losing(), Losing()
    _, recorder = go(config, folder, judge, gold)
    return config, (judge.graded, gold.graded), recorder.history(), final_weights(folder)


def lose(config, run_dir, **judges):
    """A run that pauses; returns what it told."""
    recorder = ListRecorder()
    with pytest.raises(JudgeLost):
        go(config, run_dir, recorder=recorder, **judges)
    ((said,),) = recorder.all("pausing")
    assert LOST in said
    assert "resume the job" in said
    return recorder


@pytest.mark.parametrize(
    "share",
    [0, pytest.param(0.3, marks=pytest.mark.long), 0.5, 0.7, pytest.param(0.95, marks=pytest.mark.long)],
)
def test_a_judge_that_is_lost_anywhere_costs_no_step(whole, tmp_path, share):
    config, (grades, _), history, weights = whole
    first = lose(config, tmp_path, judge=Losing(int(share * grades)))
    _, second = go(config, tmp_path)
    assert {**first.history(), **second.history()} == history
    assert final_weights(tmp_path) == weights
    told = [groups for *_, groups in [*first.all("rollouts"), *second.all("rollouts")]]
    assert not [grade for groups in told for group in groups for grade in group.grades if grade.lost]


@pytest.mark.parametrize("share", [pytest.param(0, marks=pytest.mark.long), 0.9])
def test_so_does_a_gold_judge(whole, tmp_path, share):
    config, (_, grades), history, weights = whole
    first = lose(config, tmp_path, gold=Losing(int(share * grades)))
    _, second = go(config, tmp_path)
    assert {**first.history(), **second.history()} == history
    assert final_weights(tmp_path) == weights


def test_a_pause_that_was_asked_for_while_the_judge_is_lost_leaves_its_state(whole, tmp_path):
    config, _, history, weights = whole
    judge, recorder = Losing(), ListRecorder()
    asked = stop_after(1)

    def should_pause():
        if asked():
            judge.left = 0
            return True
        return False

    with pytest.raises(RunPaused):
        go(config, tmp_path, judge, recorder=recorder, should_pause=should_pause)
    assert recorder.all("snapshot") == []
    (note,) = [said for _, said in recorder.all("note") if "no checkpoint of its own" in said]
    assert LOST in note
    _, second = go(config, tmp_path)
    assert {**recorder.history(), **second.history()} == history
    assert final_weights(tmp_path) == weights
