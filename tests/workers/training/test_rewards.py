import threading
import time

import pytest
import torch

from graders import Failure, FailureKind, Grade
from tests.workers.training.support import FunctionGrader, group_of
from workers.training.base.errors import GradingFailed
from workers.training.base.types import Prompt
from workers.training.rewards import (
    GradePool,
    PoolClosed,
    count_steps_over,
    failed_share,
    first_messages,
    rewards_of,
)


def failed(kind, message="made up"):
    return Grade(None, Failure(kind, message))


def groups(n=2, g=3):
    return [group_of(Prompt(row, {"row": row}, (1,)), *[(i,) for i in range(g)]) for row in range(n)]


@pytest.mark.parametrize(
    ("grade", "expected"),
    [
        pytest.param(Grade(0.5), 0.5, id="value"),
        pytest.param(failed(FailureKind.SAMPLE_PARSE), 0.0, id="completion-does-not-parse"),
        pytest.param(
            Grade(None, Failure(FailureKind.SAMPLE_PARSE, ""), least=-5.0), -5.0, id="below-a-wrong-one"
        ),
        pytest.param(Grade(0.0, least=-1.0), -1.0, id="a-part-does-not-parse"),
        pytest.param(failed(FailureKind.PYTHON_RUNTIME), None, id="grader-raised"),
        pytest.param(failed(FailureKind.INVALID_VARIABLE), None, id="data"),
    ],
)
def test_a_failure_is_a_gap_unless_the_completion_is_at_fault(grade, expected):
    assert grade.reward == expected


def test_rewards_of_groups_tell_gaps_from_zeros():
    kinds = {0: 1.0, 1: FailureKind.SAMPLE_PARSE, 2: FailureKind.OTHER}
    row = iter([0, 1, 2] * 2)
    pool = GradePool(FunctionGrader(lambda text, item: kinds[next(row)]), threads=1)
    found = rewards_of(pool.grade(groups()))
    assert torch.equal(found.values, torch.tensor([[1, 0, 0], [1, 0, 0]]).double())
    assert torch.equal(found.graded, torch.tensor([[True, True, False]] * 2))
    pool.close()


def test_grades_come_back_in_the_order_of_their_completions():
    def slow_for_early_rows(text, item):
        time.sleep(0.02 * (3 - item["row"]))
        return float(item["row"])

    pool = GradePool(FunctionGrader(slow_for_early_rows), threads=8)
    assert [[g.value for g in group.grades] for group in pool.grade(groups(3, 2))] == [[0, 0], [1, 1], [2, 2]]
    pool.close()


def test_a_grader_that_raises_or_returns_nan_is_a_failed_grade():
    def broken(text, item):
        return float("nan") if item["row"] else 1 / 0

    pool = GradePool(FunctionGrader(broken))
    raised, nan = (group.grades[0] for group in pool.grade(groups()))
    assert raised.failure.kind is nan.failure.kind is FailureKind.OTHER
    assert "ZeroDivisionError" in raised.failure.message
    assert "finite" in nan.failure.message
    pool.close()


def test_a_grader_that_hangs_is_left_behind_and_grading_goes_on():
    release = threading.Event()

    def hangs_on_row_0(text, item):
        return 1.0 if item["row"] else float(release.wait(30))

    pool = GradePool(FunctionGrader(hangs_on_row_0), threads=2, timeout=0.2)
    hung, fine = pool.grade(groups(2, 3))
    assert {grade.failure.kind for grade in hung.grades} == {FailureKind.OTHER}
    assert "longer than" in hung.grades[0].failure.message
    assert [grade.value for grade in fine.grades] == [1.0] * 3
    release.set()
    pool.close()


def test_a_hung_grader_does_not_keep_what_was_asked_for_after_it_from_being_graded():
    """Completions are submitted as they end, and waited for in another order."""
    release = threading.Event()

    def hangs_on_row_0(text, item):
        return 1.0 if item["row"] else float(release.wait(30))

    pool = GradePool(FunctionGrader(hangs_on_row_0), threads=1, timeout=0.2)
    (hung,), (fine,) = (group.completions for group in groups(2, 1))
    hung_job, fine_job = pool.submit(hung, {"row": 0}), pool.submit(fine, {"row": 1})
    assert pool.wait(fine_job).value == 1.0
    assert "longer than" in pool.wait(hung_job).failure.message
    assert hung_job.seconds >= 0.2
    release.set()
    pool.close()


def test_a_closed_pool_lets_go_of_whoever_waits_and_grades_nothing_more():
    release, graded = threading.Event(), []

    def grade(text, item):
        graded.append(item["row"])
        return float(release.wait(30))

    others = set(threading.enumerate())
    pool = GradePool(FunctionGrader(grade), threads=1)
    (mine,) = set(threading.enumerate()) - others
    completion = groups(1, 1)[0].completions[0]
    first, second = pool.submit(completion, {"row": 0}), pool.submit(completion, {"row": 1})
    threading.Timer(0.05, pool.close).start()
    for job in (second, first):
        with pytest.raises(PoolClosed):
            pool.wait(job)
    with pytest.raises(PoolClosed):
        pool.submit(completion, {"row": 2})
    release.set()
    mine.join(30)
    assert not mine.is_alive()
    assert graded == [0]


def test_too_many_failures_several_steps_in_a_row_fail_the_run_with_the_first_messages():
    grades = [Grade(1.0), failed(FailureKind.PYTHON_RUNTIME, "a"), failed(FailureKind.OTHER, "b")]
    over = 0
    for step in (1, 2):
        over = count_steps_over(over, step, grades, limit=0.5, steps=3)
    assert over == 2
    with pytest.raises(GradingFailed) as caught:
        count_steps_over(over, 3, grades, limit=0.5, steps=3)
    assert caught.value.code == "grader_error"
    assert caught.value.messages == ("python_grader_runtime_error: a", "other_error: b")
    assert "it was 2 of 3: python_grader_runtime_error 1, other_error 1" in str(caught.value)
    assert str(caught.value).endswith("\npython_grader_runtime_error: a\nother_error: b")


def test_one_good_step_forgives_and_completions_own_faults_never_count():
    assert count_steps_over(2, 3, [Grade(1.0)], limit=0.5, steps=3) == 0
    assert failed_share([failed(FailureKind.SAMPLE_PARSE)] * 9) == 0
    assert first_messages([failed(FailureKind.SAMPLE_PARSE)]) == ()
