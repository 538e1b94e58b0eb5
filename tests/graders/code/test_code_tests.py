import json

import pytest

from graders import FailureKind, GraderInvalid, Sample, build_grader, parse_grader
from graders.code.output import same_output
from graders.code.tests_grader import code_of
from graders.code.values import same
from graders.sandbox.transport import Unreadable, decode, encode
from graders.services import Outcome, Services
from tests.graders.unsafe_sandbox import UnsafeSandbox
from tests.shared_data import shared_rows

SPEC = {
    "type": "code_tests",
    "name": "tests",
    "input": "{{sample.output_text}}",
    "tests": "{{item.tests}}",
}
ADD = "def add(a, b):\n    return a + b\n"


@pytest.fixture
def sandbox(tmp_path):
    return UnsafeSandbox(tmp_path)


@pytest.fixture
def grade(sandbox):
    def grade(answer, tests, **changes):
        grader = build_grader(parse_grader(SPEC | changes), Services(sandbox=sandbox))
        return grader.grade(Sample(answer), {"tests": tests, "name": "add"})

    return grade


ASSERTS = ["assert add(1, 2) == 3", "assert add('a', 'b') == 'ab'", "assert add((1,), (2,)) == (1, 2)"]


def test_asserts_that_pass(grade):
    result = grade(f"Here it is:\n```python\n{ADD}```\nDone.", ASSERTS)
    assert (result.value, result.parts) == (1, {"passed": 1})
    assert result.reason == "3 of 3 tests passed"


@pytest.mark.parametrize(
    ("code", "test", "value"),
    [
        ("from collections import deque\ndef f(): return deque([1])", "assert f() == [1]", 0),
        ("from collections import Counter\ndef f(): return Counter('a')", "assert f() == {'a': 1}", 1),
        ("def f(): return 1", "assert f() is True", 0),
        ("def f(): return True", "assert f() is True", 1),
        ("def f(): return 1", "assert f() == True", 1),
        ("def f(): return 0", "assert f() is None", 0),
    ],
)
def test_an_assert_passes_where_it_does_in_python(grade, code, test, value):
    assert grade(code, [test]).value == value


@pytest.mark.parametrize("body", ["deque([n])", "[min(n, maxsize)]", "loads(f'[{n}]')"])
def test_a_call_has_leetcodes_names_and_may_return_a_sequence(grade, body):
    test = {"input": "5", "output": "[5]", "fn_name": "f"}
    assert grade(f"def f(n):\n    return {body}\n", [test]).value == 1


def test_partial_credit_and_the_first_test_that_failed(grade):
    result = grade("def add(a, b):\n    return abs(a + b)\n", ["assert add(1, 2) == 3", *ASSERTS])
    assert result.value == 2 / 4
    assert (
        "2 of 4 tests passed; the first that failed, 3 (assert add('a', 'b') == 'ab'), raised TypeError"
        in (result.reason)
    )


def test_all_or_nothing_and_a_least_share(grade):
    wrong = "def add(a, b):\n    return 3\n"
    assert grade(wrong, ASSERTS).value == pytest.approx(1 / 3)
    assert grade(wrong, ASSERTS, scoring="all").value == 0
    assert grade(ADD, ASSERTS, scoring="all").value == 1
    assert grade(wrong, ASSERTS, min_share=0.5).value == 0
    assert grade(wrong, ASSERTS, min_share=0.5).parts == {"passed": pytest.approx(1 / 3)}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            "class Same:\n    def __eq__(self, other): return True\ndef add(a, b): return Same()", id="eq"
        ),
        pytest.param("def add(a, b): raise SystemExit(0)", id="exit"),
        pytest.param("import os\nos._exit(0)", id="hard-exit"),
        pytest.param("import sys\nsys.exit(0)", id="exit-at-once"),
        pytest.param(
            "def _cherry_encode(*a): return ['i', '0x3']\ndef add(a, b): return 9", id="own-encoder"
        ),
        pytest.param("def _cherry_value(): return ['i', '0x3']\n'''", id="swallows-the-harness"),
        pytest.param(
            "class Int(int):\n    def __index__(self): return 3\ndef add(a, b): return Int(9)", id="int"
        ),
        pytest.param(
            "class D(dict):\n    def items(self): return []\ndef add(a, b): return D(x=1)", id="dict"
        ),
        pytest.param("add = None", id="no-function"),
        pytest.param("def add(a, b): return float('nan')", id="nan"),
        pytest.param("def add(a, b): return [add] * 3", id="functions"),
        pytest.param("def add(a, b):\n    x = []\n    x.append(x)\n    return x", id="contains-itself"),
        pytest.param("def add(a, b): return 10 ** 5000", id="huge-number"),
        pytest.param("def add(a, b): return '\\ud800'", id="surrogate"),
        pytest.param("def add(a, b): print('3')", id="prints"),
        pytest.param("syntax error here", id="no-python"),
        pytest.param("assert add(1, 2) == 3", id="quotes-the-test"),
        pytest.param("{{item.tests}}", id="names-the-tests"),
    ],
)
def test_no_answer_can_give_itself_a_verdict_where_the_test_says_what_it_expects(grade, answer):
    assert grade(answer, ["assert add(1, 2) == 3"]).value == 0
    assert grade(answer, [{"arguments": [1, 2], "expected": 3}], function="add").value == 0


@pytest.mark.parametrize("answer", ["import sys\nsys.exit(0)", "import os\nos._exit(0)", "raise SystemExit"])
def test_ending_early_passes_no_test_that_is_code(grade, answer):
    assert grade(answer, ["def check(f):\n    assert f(1, 2) == 3\ncheck(add)"]).value == 0
    assert grade(ADD, ["def check(f):\n    assert f(1, 2) == 3\ncheck(add)"]).value == 1


def test_expected_values_never_reach_the_sandbox(grade, sandbox):
    grade(ADD, ["assert add(1, 2) == 314159", {"arguments": [1, 2], "expected": 271828}], function="add")
    assert len(sandbox.programs) == 2
    for program in sandbox.programs:
        assert "314159" not in program.source
        assert "271828" not in program.source + json.dumps(list(program.arguments))


@pytest.mark.parametrize("answer", ["", " \n", "```python\n```", "```\n\n```"])
def test_no_code_scores_0_and_runs_nothing(grade, sandbox, answer):
    assert grade(answer, ASSERTS).value == 0
    assert sandbox.programs == []


def test_huge_code_is_not_run(grade, sandbox):
    assert grade("x = 1\n" * 100_000, ASSERTS).value == 0
    assert sandbox.programs == []


def test_programs_by_what_they_print(grade):
    tests = [{"input": "1 2\n", "output": "3\n"}, {"input": "5 5", "output": "10"}]
    assert grade("a, b = map(int, input().split())\nprint(a + b)", tests).value == 1
    assert grade("print(3)", tests).value == 1 / 2
    assert "printed '3', not '10'" in grade("print(3)", tests).reason
    assert grade("print(3)\nraise SystemExit(1)", tests).value == 0
    assert grade("if __name__ == '__main__':\n    print(sum(map(int, input().split())))", tests).value == 1


def test_functions_by_their_results(grade):
    tests = [
        {"input": "[1, 2]\n3", "output": "[1, 2, 3]", "fn_name": "join"},
        {"arguments": [[], 0.1], "expected": [0.1], "function": "join"},
    ]
    assert grade("def join(xs, x):\n    return tuple(xs) + (x,)\n", tests).value == 1
    method = "class Solution:\n    def join(self, xs, x):\n        return [*xs, x]\n"
    assert grade(method, tests).value == 1
    assert grade("def join(xs, x):\n    return xs\n", tests).value == 0


def test_inputs_beside_outputs(grade):
    both = {"inputs": ["1 2", "3 4"], "outputs": ["3", "7"]}
    assert grade("print(sum(map(int, input().split())))", json.dumps(both)).value == 1
    assert grade(ADD, {"inputs": [[1, 2]], "outputs": [[3]], "fn_name": "add"}).value == 1


def test_an_endless_answer_fails_each_test_in_its_time(grade):
    result = grade("while True: pass", ASSERTS, time_limit=0.3, total_time_limit=0.5)
    assert result.value == 0
    assert "ran longer than its time limit" in result.reason
    assert "of 3 tests passed" in result.reason


def test_a_broken_sandbox_is_nobodys_zero(tmp_path):
    class Broken(UnsafeSandbox):
        def run(self, program):
            return Outcome(fault="server", message="no more processes")

    grader = build_grader(parse_grader(SPEC), Services(sandbox=Broken(tmp_path)))
    result = grader.grade(Sample(ADD), {"tests": ASSERTS})
    assert result.failure.kind is FailureKind.PYTHON_SERVER
    assert "no more processes" in result.failure.message


def test_without_a_sandbox_the_grader_is_refused():
    with pytest.raises(GraderInvalid) as caught:
        build_grader(parse_grader(SPEC), Services(why={"sandbox": "Landlock is missing"}))
    assert caught.value.code == "python_grader_unavailable"
    assert "Landlock is missing" in caught.value.message


@pytest.mark.parametrize(
    "tests",
    [
        pytest.param([], id="none"),
        pytest.param(["def check(f):\n    assert f(1) == 2"], id="defines-a-check-and-calls-it-not"),
        pytest.param(5, id="a-number"),
        pytest.param("", id="empty-text"),
        pytest.param("[1, 2", id="broken-json"),
        pytest.param("[1]", id="numbers"),
        pytest.param(["assert add(1, 2) =="], id="not-python"),
        pytest.param([{"input": "x"}], id="no-output"),
        pytest.param([{"input": 5, "output": "x"}], id="input-is-a-number"),
        pytest.param(
            [{"arguments": {"a": 1}, "expected": 1, "function": "add"}], id="arguments-are-an-object"
        ),
        pytest.param([{"arguments": [1], "expected": 1}], id="no-function"),
        pytest.param([{"input": "not json", "output": "1", "fn_name": "add"}], id="arguments-are-not-json"),
        pytest.param({"inputs": ["1"], "outputs": []}, id="fewer-outputs"),
        pytest.param(["assert 1"] * 513, id="too-many"),
        pytest.param("eJxLTEpOSU1Lz8jMys7Jzcs=", id="pickled"),
    ],
)
@pytest.mark.parametrize("answer", ["", ADD])
def test_tests_that_cannot_be_read_are_the_datas_fault(grade, sandbox, tests, answer):
    result = grade(answer, tests)
    assert result.value is None
    assert result.failure.kind is FailureKind.INVALID_VARIABLE
    assert sandbox.programs == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("x = 1", "x = 1"),
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```py\nx = 1\n```\nthen\n```python\nx = 2\n```", "x = 2\n"),
        ("```\nx = 1\n```\n```text\nhello\n```", "x = 1\n"),
        ("```python\nx = '```'\n```", "x = '```'\n"),
        ("```python\nx = 1", "x = 1"),
        ("```bash\nls\n```", "```bash\nls\n```"),
        ("```python\n    return 1\n```", "    return 1\n"),
    ],
)
def test_code_is_found_in_the_last_fence(answer, code):
    assert code_of(answer) == code


def test_finding_code_among_many_fences_is_quick():
    assert code_of("```\n" * 60_001) == ""
    assert code_of("`" * 300_000)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(10**30),
        1.5,
        "é",
        b"\0",
        1j,
        [],
        [1, [2]],
        (1, "x"),
        {1, 2},
        {"a": {2: (3,)}},
        frozenset(),
    ],
)
def test_values_are_told_through_json(value):
    got = decode(json.loads(json.dumps(encode(value))))
    assert same(value, got, 0.0, is_json=False)
    assert not same(value, decode(["ox"]), 0.0, is_json=False)


@pytest.mark.parametrize(
    "texts",
    [
        None,
        3,
        [],
        [""],
        ["i"],
        ["izz"],
        [3],
        ["fx"],
        ["l2", "i1"],
        ["l1", "i1", "i1"],
        ["l-1"],
        ["d1", "i1"],
        ["d2", "l0", "i1"],
        ["e1", "l0"],
        ["z1"],
        ["kobject"],
        ["mPoint x y", "i1"],
        ["q1 0"],
        [["i1"]],
        ["l1"] * 5000 + ["i1"],
        {},
    ],
)
def test_texts_that_are_not_of_the_form_are_no_value(texts):
    with pytest.raises((Unreadable, TypeError)):
        decode(texts)


def test_values_nested_too_deeply_are_opaque():
    deep = []
    for _ in range(500):
        deep = [deep]
    read = decode(encode(deep))
    assert read != deep
    assert not same(deep, read, 0.0, is_json=False)


def test_printed_output_is_compared_by_lines_and_numbers():
    assert same_output("1 2\n3\n", "1 2  \n3\n\n")
    assert same_output("0.3333333333", "0.33333333330001")
    assert not same_output("1 2", "1\n2")
    assert not same_output("25", "5")
    assert not same_output("yes", "YES")
    assert not same_output("", "x")


def human_eval(sandbox):
    spec = SPEC | {
        "before": "{{item.prompt}}",
        "tests": ["{{item.test}}\ncheck({{item.entry_point}})"],
    }
    return build_grader(parse_grader(spec), Services(sandbox=sandbox))


SOLUTIONS = {
    # task: (a right body, what is changed, into what)
    "HumanEval/5": ("return [x for n in numbers for x in (n, delimeter)][:-1]", ":-1", ":-2"),
    "HumanEval/8": ("import math\n    return sum(numbers), math.prod(numbers)", "prod", "fsum"),
    "HumanEval/11": ("return ''.join('01'[x != y] for x, y in zip(a, b))", "!=", "=="),
    "HumanEval/12": ("return max(strings, key=len, default=None)", "max", "min"),
    "HumanEval/14": ("return [string[: i + 1] for i in range(len(string))]", "+ 1", "+ 2"),
    "HumanEval/22": ("return [x for x in values if isinstance(x, int)]", "int)", "str)"),
    "HumanEval/35": ("return max(l)", "max", "min"),
    "HumanEval/49": ("return pow(2, n, p)", "2", "3"),
    "HumanEval/53": ("return x + y", "+", "-"),
    "HumanEval/85": ("return sum(x for x in lst[1::2] if x % 2 == 0)", "[1", "[0"),
    "HumanEval/96": (
        "return [p for p in range(2, n) if all(p % q for q in range(2, p))]", "(2, n)", "(2, n + 9)",
    ),
    "HumanEval/158": ("return min(words, key=lambda w: (-len(set(w)), w))", "min", "max"),
}  # fmt: skip


@pytest.mark.parametrize("task", SOLUTIONS)
def test_humaneval_solutions_pass_and_mutated_ones_fail(sandbox, task):
    rows = {row["task_id"]: row for row in shared_rows("data/humaneval-40")}
    grader = human_eval(sandbox)
    body, old, new = SOLUTIONS[task]
    assert grader.grade(Sample(f"    {body}\n"), rows[task]).value == 1
    assert grader.grade(Sample(f"```python\n    {body}\n```"), rows[task]).value == 1
    mutant = body.replace(old, new)
    assert mutant != body
    assert grader.grade(Sample(f"    {mutant}\n"), rows[task]).value == 0
    assert grader.grade(Sample("    return None\n"), rows[task]).value == 0


def test_every_humaneval_row_can_be_graded(sandbox):
    grader = human_eval(sandbox)
    for row in shared_rows("data/humaneval-40"):
        assert grader.grade(Sample(""), row).value == 0
