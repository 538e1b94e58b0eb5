"""`code_tests` and `rlvr` with the real sandbox; what they make of results is tested in tests/graders."""

import pytest

from graders import Sample, build_grader, parse_grader
from tests.graders.code.test_code_tests import ADD, SOLUTIONS, SPEC
from tests.graders.code.test_code_tests import human_eval as human_eval_grader
from tests.shared_data import shared_rows

TESTS = ["assert add(1, 2) == 3", "assert add([1], [2]) == [1, 2]", "assert add('a', 'b') == 'ab', 'text'"]


@pytest.fixture(scope="module")
def grader(services):
    return build_grader(parse_grader(SPEC | {"time_limit": 5.0, "memory_mb": 512}), services)


def value(grader, answer, tests=TESTS):
    result = grader.grade(Sample(answer), {"tests": tests})
    assert result.failure is None, result.failure
    return result.value


def test_right_wrong_and_broken_answers(grader):
    assert value(grader, ADD) == 1
    assert value(grader, ADD.replace("+", "-")) == 0
    assert value(grader, "def add(a, b):\n    return 3\n") == pytest.approx(1 / 3)
    assert value(grader, "def add(") == 0


def test_programs_and_functions(grader):
    program = [{"input": "2 3\n", "output": "5\n"}, {"input": "", "output": ""}]
    assert value(grader, "a = input().split()\nprint(int(a[0]) + int(a[1]))", program) == 1 / 2
    called = [{"arguments": [[1, None, True]], "expected": [True, None, 1], "function": "back"}]
    assert value(grader, "def back(xs):\n    return tuple(reversed(xs))", called) == 1


@pytest.mark.parametrize(
    "answer",
    [
        "import os\nos._exit(0)",
        "class Same:\n    def __eq__(self, other): return True\ndef add(a, b): return Same()",
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
        "open('/etc/passwd').read()",
        "x = 'x' * 10**10",
        "import sys\nsys.stdout.write('x' * 10**8)",
    ],
)
def test_hostile_answers_pass_no_test_and_the_next_is_graded(grader, answer):
    assert value(grader, answer, TESTS[:1]) == 0
    assert value(grader, ADD, TESTS[:1]) == 1


def test_humaneval(services):
    rows = {row["task_id"]: row for row in shared_rows("data/humaneval-40")}
    grader = human_eval_grader(services.sandbox)
    for task, (body, old, new) in SOLUTIONS.items():
        assert grader.grade(Sample(f"    {body}\n"), rows[task]).value == 1, task
        assert grader.grade(Sample(f"    {body.replace(old, new)}\n"), rows[task]).value == 0, task


def test_rlvr_rows_of_code(services):
    grader = build_grader(parse_grader({"type": "rlvr", "name": "row"}), services)
    row = {"dataset": "code", "ground_truth": '["assert add(1, 2) == 3", "assert add(2, 2) == 5"]'}
    assert grader.grade(Sample(f"```python\n{ADD}```"), row).value == 0.5
