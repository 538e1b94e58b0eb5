# ruff: noqa: E501 - one case a line
"""`python` graders: their format, what they get, what counts as a grade, and what fails by name."""

import json

import pytest

from graders import FailureKind, GraderInvalid, Sample, build_grader, dump_grader, parse_grader
from graders.sandbox import LocalSandbox, SandboxSettings
from graders.services import NO_SERVICES, Services
from tests.shared_data import shared_path, shared_rows

GRADE = "def grade(sample, item):\n    return {}\n"


def python(source, **more):
    return {"type": "python", "name": "p", "source": source, **more}


def graded(services, source, text="", item=None, **sample):
    grader = build_grader(parse_grader(python(source)), services)
    return grader.grade(Sample(text, **sample), item or {})


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        pytest.param("", "string_below_min_length", "at least 1 character", id="empty"),
        pytest.param("def grade(", "invalid_value", "no valid Python: '(' was never closed (line 1)", id="syntax"),
        pytest.param("x = 1", "invalid_value", "defines no function 'grade(sample, item)'", id="no-grade"),
        pytest.param("class A:\n  def grade(s, i): pass", "invalid_value", "defines no function", id="not-at-the-top"),
        pytest.param("def grade(sample): return 1", "invalid_value", "two positional arguments", id="one-argument"),
        pytest.param("def grade(a, b, c): return 1", "invalid_value", "two positional", id="three-arguments"),
        pytest.param("def grade(a, *, item): return 1", "invalid_value", "two positional", id="keyword-only"),
        pytest.param("async def grade(a, b): return 1", "invalid_value", "must not be async", id="async"),
        pytest.param("#" * 2**18 + "\ndef grade(a, b): return 1", "string_above_max_length", "262,144", id="too-long"),
        pytest.param("x = '\0'\ndef grade(a, b): return 1", "invalid_value", "null bytes", id="nul"),
        pytest.param("x = " + "(" * 5000 + ")" * 5000, "invalid_value", "no valid Python", id="brackets"),
        pytest.param("x = " + "-" * 90_000 + "1", "invalid_value", "no valid Python", id="minus-signs"),
        pytest.param("x = " + "1+" * 90_000 + "1", "invalid_value", "", id="a-long-sum"),
    ],
)  # fmt: skip
def test_a_source_that_cannot_grade_is_refused_without_running_it(source, code, message):
    with pytest.raises(GraderInvalid) as caught:
        parse_grader(python(source))
    assert (caught.value.code, caught.value.param) == (code, "source")
    assert message in caught.value.message


@pytest.mark.parametrize(
    "arguments", ["sample, item", "a, b=1", "*both", "a, b, c=0", "a, /, b", "a, b, *, c=1"]
)
def test_grade_may_take_its_two_arguments_in_any_way(services, arguments):
    grader = build_grader(parse_grader(python(f"def grade({arguments}): return 1")), services)
    assert grader.grade(Sample("x"), {}).value == 1


def test_a_name_and_the_image_are_filled_in_and_echoed():
    spec = parse_grader({"type": "python", "source": GRADE.format(1)})
    again = parse_grader({"type": "python", "source": GRADE.format(1)})
    assert dump_grader(spec)["image_tag"] == "2025-05-08"
    assert spec.name == again.name
    assert spec.name.startswith("grader-")
    assert parse_grader(dump_grader(spec)) == spec
    assert (
        dump_grader(parse_grader(python(GRADE.format(1), image_tag="2026-01-01")))["image_tag"]
        == "2026-01-01"
    )


def test_without_a_sandbox_it_is_refused_with_the_reason():
    spec = parse_grader(python(GRADE.format(1)))
    off = Services(sandbox=LocalSandbox(SandboxSettings(wanted="off")))
    for services, reason in ((NO_SERVICES, "no sandbox"), (off, "CHERRY_SANDBOX=off")):
        with pytest.raises(GraderInvalid) as caught:
            build_grader(spec, services)
        assert (caught.value.code, caught.value.param) == ("python_grader_unavailable", "type")
        assert reason in caught.value.message


def test_inside_a_multi_the_refusal_names_the_part():
    multi = {"type": "multi", "name": "m", "graders": {"a": python(GRADE.format(1))}, "calculate_output": "a"}
    with pytest.raises(GraderInvalid) as caught:
        build_grader(parse_grader(multi))
    assert (caught.value.code, caught.value.param) == ("python_grader_unavailable", "graders.a.type")


def test_what_only_the_compiler_finds_is_refused_when_it_is_built(services):
    with pytest.raises(GraderInvalid) as caught:
        build_grader(parse_grader(python("return 1\ndef grade(a, b): return 1")), services)
    assert caught.value.param == "source"
    assert "'return' outside function" in caught.value.message


def test_it_gets_sample_and_item_as_openai_gives_them(services):
    source = "import json\ndef grade(sample, item):\n    print(json.dumps([sample, item]))\n    return 1"
    call = {"type": "function", "id": "c", "function": {"name": "f", "arguments": "{}"}}
    grade = graded(services, source, ' {"a": [1]} ', {"k": "é", "n": None}, output_tools=[call])
    sample, item = json.loads(grade.reason)
    message = {"role": "assistant", "content": ' {"a": [1]} ', "tool_calls": [call]}
    assert sample == {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "output_text": ' {"a": [1]} ',
        "output_json": {"a": [1]},
        "output_reasoning_summary": None,
        "output_thoughts": None,
        "output_tools": [call],
        "output_audio": None,
    }
    assert item == {"k": "é", "n": None}


def test_text_that_is_no_json_gives_none(services):
    assert graded(services, GRADE.format("sample['output_json'] is None and 0.5"), "hello").value == 0.5


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        pytest.param("1", 1.0, id="int"),
        pytest.param("-0.25", -0.25, id="negative"),
        pytest.param("2**80", 2.0**80, id="huge-int"),
        pytest.param("__import__('decimal').Decimal('0.5')", 0.5, id="decimal"),
        pytest.param("__import__('fractions').Fraction(1, 4)", 0.25, id="fraction"),
        pytest.param("__import__('numpy').float32(0.5)", 0.5, id="numpy-scalar"),
        pytest.param("__import__('numpy').int64(3)", 3.0, id="numpy-int"),
        pytest.param("__import__('numpy').array(0.5)", 0.5, id="array-without-dimensions"),
        pytest.param("type('F', (), {'__float__': lambda self: 0.75})()", 0.75, id="own-class"),
    ],
)  # fmt: skip
def test_whatever_turns_into_a_finite_float_is_a_grade(services, expression, value):
    assert graded(services, GRADE.format(expression)).value == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        pytest.param("True", "grade returned True, which is no number", id="bool"),
        pytest.param("None", "grade returned None", id="none"),
        pytest.param("'0.5'", "grade returned '0.5'", id="text"),
        pytest.param("b'1'", "returned bytes", id="bytes"),
        pytest.param("[1.0]", "grade returned [1", id="list"),
        pytest.param("1j", "returned complex", id="complex"),
        pytest.param("float('nan')", "returned nan, which is not finite", id="nan"),
        pytest.param("float('-inf')", "returned -inf", id="inf"),
        pytest.param("10**400", "too large for a float", id="too-large"),
        pytest.param("__import__('numpy').array([0.5])", "returned ndarray", id="array"),
        pytest.param("__import__('numpy').float64('nan')", "not finite", id="numpy-nan"),
        pytest.param("__import__('numpy').bool_(True)", "grade returned True", id="numpy-bool"),
        pytest.param("1 / 0", "ZeroDivisionError: division by zero", id="raises"),
        pytest.param("quit()", "SystemExit", id="quits"),
        pytest.param("__import__('sys').exit(3)", "SystemExit: 3", id="exits"),
        pytest.param("item['nope']", "KeyError: 'nope'", id="key-error"),
        pytest.param("__import__('nowhere_to_be_found')", "No module named 'nowhere_to_be_found'", id="import"),
    ],
)  # fmt: skip
def test_anything_else_is_a_runtime_error_that_says_what(services, expression, message):
    failure = graded(services, GRADE.format(expression)).failure
    assert failure.kind is FailureKind.PYTHON_RUNTIME
    assert message in failure.message
    assert len(failure.message) < 2500


def test_the_traceback_shows_the_users_lines_and_none_of_ours(services):
    failure = graded(services, "def grade(sample, item):\n    answer = {}\n    return answer['x']\n").failure
    assert failure.message.splitlines() == [
        "Traceback (most recent call last):",
        '  File "<grader>", line 3, in grade',
        "    return answer['x']",
        "           ~~~~~~^^^^^",
        "KeyError: 'x'",
    ]


def test_the_same_call_draws_the_same_numbers(services):
    source = "import random, numpy\ndef grade(sample, item):\n    return random.random() + 10 * numpy.random.random()"
    first, again, other = (graded(services, source, text).value for text in ("a", "a", "b"))
    assert first == again
    assert first != other


PACKAGES = {
    "numpy": "numpy.linalg.norm([3.0, 4.0]) / 5",
    "scipy": "scipy.stats.spearmanr([1, 2, 3], [1, 2, 3]).statistic",
    "sympy": "float(sympy.simplify('(x + 1)**2 - x**2 - 2*x'))",
    "pandas": "pandas.DataFrame({'a': [1.0]}).a.sum()",
    "rapidfuzz": "rapidfuzz.fuzz.ratio('a', 'a') / 100",
    "sklearn": "sklearn.metrics.accuracy_score([1], [1])",
    "rouge_score": "rouge_score.rouge_scorer.RougeScorer(['rougeL']).score('a b', 'a b')['rougeL'].fmeasure",
    "deepdiff": "float(deepdiff.DeepDiff({'a': 1}, {'a': 1}) == {})",
    "jsonschema": "float(jsonschema.Draft202012Validator({'type': 'object'}).is_valid({}))",
    "pydantic": "pydantic.TypeAdapter(float).validate_python('1')",
    "yaml": "float(yaml.safe_load('a: 1')['a'])",
    "nltk": "nltk.translate.bleu_score.sentence_bleu([list('abcde')], list('abcde'))",
    "sqlparse": "float(len(sqlparse.parse('select 1')))",
}
MORE_IMPORTS = {
    "rouge_score": "import rouge_score.rouge_scorer",
    "sklearn": "import sklearn.metrics",
    "scipy": "import scipy.stats",
    "rapidfuzz": "from rapidfuzz import fuzz; import rapidfuzz",
}


@pytest.mark.parametrize("package", PACKAGES)
def test_openais_packages_work_behind_the_locks(services, package):
    pytest.importorskip(package)
    imports = MORE_IMPORTS.get(package, f"import {package}")
    grade = graded(services, f"{imports}\n{GRADE.format(PACKAGES[package])}")
    assert grade.failure is None
    assert grade.value == pytest.approx(1)


@pytest.mark.parametrize("folder", ["gsm8k-train-500", "svamp-200"])
def test_the_number_graders_of_the_shared_data_score_their_own_references(services, folder):
    raw = json.loads(shared_path(f"data/{folder}/grader.json").read_bytes())
    grader = build_grader(parse_grader(raw), services)
    for row in shared_rows(f"data/{folder}")[:60]:
        assert grader.grade(Sample(f"So it is\n#### {row['answer']}"), row).value == 1
    assert grader.grade(Sample("#### no idea"), row).value == 0
    assert grader.grade(Sample(""), row).value == 0


def test_snips_rows_score_1_with_their_own_reference(services):
    raw = json.loads(shared_path("data/snips-slots-200/grader.json").read_bytes())
    grader = build_grader(parse_grader(raw), services)
    for row in shared_rows("data/snips-slots-200")[:40]:
        assert grader.grade(Sample(row["reference_json"]), row).value == pytest.approx(1)
    assert grader.grade(Sample("{}"), row).value == 0
    assert grader.grade(Sample('{"intent": "?", "slots": {}}'), row).value == 0
    assert grader.grade(Sample("no JSON"), row).part_failures["intent"].kind is FailureKind.SAMPLE_PARSE


def test_the_countdown_grader_counts_right(services):
    raw = json.loads(shared_path("data/countdown-azure-100/grader.json").read_bytes())
    grader = build_grader(parse_grader(raw), services)
    item = {"nums": [2, 3, 4], "target": 10}
    assert grader.grade(Sample('{"expression": "2 * 3 + 4", "result": "10"}'), item).value == 1
    assert grader.grade(Sample('{"expression": "2 * 4 + 3", "result": "11"}'), item).value == 0.1
    assert grader.grade(Sample("2 * 3 + 4"), item).value == 0


SOLUTIONS = {
    "HumanEval/5": "    out = []\n    for n in numbers:\n        out += [n, delimeter]\n    return out[:-1]\n",
}


def test_the_unit_tests_of_humaneval_tell_right_from_wrong(services):
    raw = json.loads(shared_path("data/humaneval-40/grader.json").read_bytes())
    grader = build_grader(parse_grader(raw), services)
    rows = {row["task_id"]: row for row in shared_rows("data/humaneval-40")}
    for task, solution in SOLUTIONS.items():
        assert grader.grade(Sample(solution), rows[task]).value == 1
    for row in rows.values():
        assert grader.grade(Sample("    return None\n"), row).value == 0
        assert grader.grade(Sample("    raise SystemExit\n"), row).value == 0
