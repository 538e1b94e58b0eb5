import threading
import time
from dataclasses import replace

import pytest
import torch

from graders import Failure, FailureKind, Grade
from tests.workers.training.support import FunctionGrader, group_of
from workers.training.base.errors import GradingFailed
from workers.training.base.parts import Parts
from workers.training.base.types import Prompt
from workers.training.rewards import (
    GradePool,
    JobGroup,
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


def submit(pool, completion, row):
    return pool.submit(completion, JobGroup({"row": row}, 1), 0)


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
    hung_job, fine_job = submit(pool, hung, 0), submit(pool, fine, 1)
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
    first, second = submit(pool, completion, 0), submit(pool, completion, 1)
    threading.Timer(0.05, pool.close).start()
    for job in (second, first):
        with pytest.raises(PoolClosed):
            pool.wait(job)
    with pytest.raises(PoolClosed):
        submit(pool, completion, 2)
    release.set()
    mine.join(30)
    assert not mine.is_alive()
    assert graded == [0]


class GroupsOnly(FunctionGrader):
    """Grades a completion by how many of its group are as long or shorter."""

    def __init__(self, grade_group=None):
        super().__init__(lambda text, item: 1 / 0)
        self.asked = []
        self.done = grade_group or (lambda samples: [Grade(len(s.output_text) / 10) for s in samples])

    def grade_group(self, samples, item, base=None):
        self.asked.append(([sample.output_text for sample in samples], item, base))
        return self.done(samples)


def test_a_grader_of_groups_is_asked_once_a_group_with_its_completions_in_their_places():
    grader = GroupsOnly()
    pool = GradePool(grader)
    (first, second) = (group_of(Prompt(row, {"row": row}, (1,)), (1,), (2,), (3,)) for row in range(2))
    texts = [completion.text for completion in first.completions]
    of_group = JobGroup(first.prompt.item, 3)
    jobs = [pool.submit(first.completions[place], of_group, place) for place in (2, 0, 1)]
    assert [pool.wait(job).value for job in jobs] == [len(texts[i]) / 10 for i in (2, 0, 1)]
    (graded,) = pool.grade([second], {1: ["what the base wrote"]}.get)
    assert len(graded.grades) == 3
    assert grader.asked == [
        (texts, {"row": 0}, None),
        (texts, {"row": 1}, ["what the base wrote", None, None]),
    ]
    pool.close()


def test_what_no_grader_is_shown_is_no_part_of_the_group_that_is_asked_about():
    grader = GroupsOnly()
    pool = GradePool(grader, least=-1.0)
    (group,) = groups(1, 3)
    one, two, three = group.completions
    lost, unparsed = replace(one, lost="The server is away."), replace(two, parts=Parts(fault="No answer."))
    (graded,) = pool.grade([replace(group, completions=(lost, unparsed, three))])
    assert [texts for texts, *_ in grader.asked] == [[three.text]]
    kinds = [grade.failure and grade.failure.kind for grade in graded.grades]
    assert kinds == [FailureKind.TOOL_SERVER, FailureKind.SAMPLE_PARSE, None]
    assert [grade.reward for grade in graded.grades] == [None, -1.0, len(three.text) / 10]
    pool.close()


def test_a_group_that_hangs_raises_or_comes_back_short_fails_in_each_of_its_completions():
    release = threading.Event()

    def broken(samples):
        return {1: lambda: 1 / 0, 2: lambda: [Grade(1.0)], 3: lambda: [release.wait(30)]}[len(samples)]()

    pool = GradePool(GroupsOnly(broken), threads=1, timeout=0.2)
    sizes = [groups(1, size)[0] for size in (3, 2, 1)]
    hung, short, raised = ([g.failure.message for g in group.grades] for group in pool.grade(sizes))
    assert len(hung) == 3
    assert all("longer than" in message for message in hung)
    assert short == ["The grader gave 1 grades to 2 completions."] * 2
    assert "ZeroDivisionError" in raised[0]
    release.set()
    pool.close()


def test_the_time_of_a_group_counts_once():
    pool = GradePool(GroupsOnly(lambda samples: time.sleep(0.1) or [Grade(1.0)] * len(samples)))
    (group,) = groups(1, 4)
    of_group = JobGroup({}, 4)
    jobs = [pool.submit(completion, of_group, i) for i, completion in enumerate(group.completions)]
    whole = [pool.wait(job) for job in jobs] and sum(job.seconds for job in jobs)
    assert jobs[0].seconds == whole / 4 >= 0.1 / 4
    pool.close()


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
