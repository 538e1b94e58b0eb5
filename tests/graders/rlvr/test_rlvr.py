import json

import pytest

from graders import FailureKind, GraderInvalid, Sample, build_grader, parse_grader
from graders.rlvr.grader import find_verifier
from graders.rlvr.verifiers import REFUSED, VERIFIERS, VERL
from graders.services import Services
from tests.graders.unsafe_sandbox import UnsafeSandbox

SPEC = {"type": "rlvr", "name": "row"}
LABEL = {
    "instruction_id": ["keywords:existence", "punctuation:no_comma"],
    "kwargs": [{"keywords": ["x"]}, None],
}
IFEVAL = str([LABEL])
CODE = json.dumps(["assert add(1, 2) == 3", "assert add(2, 2) == 4"])
FENCED = "```python\ndef add(a, b):\n    return a + b\n```"


@pytest.fixture
def grade(tmp_path):
    def grade(answer, dataset, label, *, tokens=None, **changes):
        grader = build_grader(parse_grader(SPEC | changes), Services(sandbox=UnsafeSandbox(tmp_path)))
        return grader.grade(Sample(answer, output_tokens=tokens), {"dataset": dataset, "ground_truth": label})

    return grade


CASES = [
    # verifier, label, answers and what each is worth
    ("gsm8k", "72", {"So 48 + 24 = 72.": 1, "725": 0, "72 or 73": 0, "seventy-two": 0, "5,072": 0}),
    (
        "math",
        r"\frac{1}{2}",
        {r"\boxed{0.5}": 1, "The answer is $0.5$.": 1, r"\boxed{3} $\frac12$": 1, "3": 0},
    ),
    (
        "strict_math",
        "4",
        {"Final Answer: The final answer is $4$. I hope it is correct.": 1, r"\boxed{4}": 0},
    ),
    ("ifeval", IFEVAL, {"x": 1, "x, y": 0.5, "<think>a, b</think>x": 1, "": 0, "y,": 0}),
    ("ifeval_old", json.dumps({"func_name": "validate_no_commas", "N": None}), {"x": 1, "x,": 0}),
    ("flan", "The Yes", {"The answer is: yes.": 1, "yes": 0, "The answer is: no": 0}),
    ("string_matcher", "Rome", {"<answer>rome!</answer>": 1, "Rome": 0, "<answer>Rome, Paris</answer>": 0}),
    (
        "string_f1",
        ["a red fox", "fox"],
        {"<think>cat</think>the fox": 1, "<answer>red</answer>": 2 / 3, "": 0},
    ),
    ("string_f1", '["Rome", "Roma"]', {"Roma": 1, "Paris": 0}),
    ("puzzle", "a b", {"<think>x</think><answer>B</answer>": 1, "c": 0}),
    ("re_search", '["Rome", "Roma"]', {"<finish>roma</finish>": 1, "roma": 0, "<FINISH>Rome</FINISH>": 1}),
    (
        "re_search_f1",
        "red fox",
        {"<finish>fox</finish>": 2 / 3, "<finish>cat</finish>": 0.1, "<finish>": 0, "fox": 0},
    ),
    ("search_r1", {"target": ["Rome"]}, {"<answer>rome</answer>": 1, "<answer>x</answer>": 0}),
    ("code", CODE, {FENCED: 1, FENCED.replace("+", "*"): 0.5, "no": 0}),
    (
        "code_stdio",
        json.dumps([{"input": "2", "output": "4"}]),
        {"print(int(input()) * 2)": 1, "print(5)": 0},
    ),
    ("verl_gsm8k", "72", {"#### 72": 1, "72": 0}),
    ("verl_math", "x+1", {r"\boxed{1+x}": 1, "x+1": 0}),
]


@pytest.mark.parametrize(
    ("name", "label", "answers"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)]
)
def test_each_verifier_by_name_in_any_case(grade, name, label, answers):
    for answer, worth in answers.items():
        result = grade(answer, name.upper(), label)
        assert result.failure is None, result
        assert result.value == pytest.approx(worth), answer
        assert result.parts[name] == pytest.approx(worth)
        assert result.reason.startswith(f"{name}: ")


def test_every_verifier_has_answers_above():
    assert {case[0] for case in CASES} | {"max_length", "up_to_max_length"} == VERIFIERS.keys()


def test_lengths_are_of_tokens(grade):
    assert grade("x", "max_length", "100", tokens=100).value == 1
    assert grade("x", "max_length", 100, tokens=100 - 4096).value == 0.5
    assert grade("x", "max_length", "100", tokens=100 + 819, max_length=8190).value == pytest.approx(0.9)
    assert grade("x", "max_length", "0", tokens=100_000).value == 0
    assert grade("x", "up_to_max_length", "100", tokens=3).value == 1
    assert grade("x", "up_to_max_length", "100", tokens=100 + 2048).value == 0.75
    assert grade("", "up_to_max_length", "100").value == 1
    assert grade("x", "max_length", "100").failure.kind is FailureKind.OTHER


def test_scores_of_several_verifiers_add_up(grade):
    both = grade("x = 72", ["gsm8k", "ifeval"], ["72", IFEVAL])
    assert both.value == 2
    assert both.parts["gsm8k"] == both.parts["ifeval"] == both.parts["ifeval.punctuation:no_comma"] == 1
    assert grade("x, 72", ["gsm8k", "ifeval"], ["72", IFEVAL]).value == 1.5
    assert grade("x, 72", ["gsm8k", "ifeval"], ["72", IFEVAL], scale=10).value == 15
    assert grade("x, 72", ["gsm8k", "ifeval"], ["72", IFEVAL], scale=10).parts["ifeval"] == 0.5
    assert grade("72", ["gsm8k"], ["72"]).value == 1
    assert grade("72", "gsm8k", ["72"]).value == 1
    assert grade("72", "gsm8k", 72).value == 1


@pytest.mark.parametrize(
    ("dataset", "label", "named"),
    [
        pytest.param("gsm9k", "72", "'gsm9k', which is not known", id="unknown"),
        pytest.param("general-quality", "x", "the grader names none", id="a-judge"),
        pytest.param("rubric", "{}", "the grader names none", id="rubric"),
        pytest.param("passthrough", "x", "environment", id="environment"),
        pytest.param(["gsm8k", "nope"], ["72", "x"], "'nope'", id="one-of-two-unknown"),
        pytest.param(["gsm8k", "math"], ["72"], "2 verifiers", id="too-few-labels"),
        pytest.param(["gsm8k", "math"], "72", "2 verifiers", id="one-label"),
        pytest.param([], [], "list of names", id="none"),
        pytest.param(5, "72", "list of names", id="number"),
        pytest.param([["gsm8k"]], ["72"], "not known", id="nested"),
        pytest.param("gsm8k", ["1", "2"], "one value", id="two-labels"),
        pytest.param("gsm8k", "???", "no number", id="label-is-no-number"),
        pytest.param("gsm8k", "", "no number", id="empty-label"),
        pytest.param("ifeval", "{}", "instruction ids", id="no-instructions"),
        pytest.param("ifeval", "x y", "literal", id="label-is-no-literal"),
        pytest.param("code", "not python at all", "not Python", id="label-is-no-code"),
        pytest.param("code", "[]", "0; 1 to", id="no-tests"),
        pytest.param("string_f1", [], "empty list", id="no-texts"),
        pytest.param("flan", None, "neither text", id="null"),
        pytest.param("max_length", "long", "no number", id="length-is-text"),
        pytest.param("max_length", "nan", "no number", id="length-is-nan"),
    ],
)
@pytest.mark.parametrize("answer", ["", "72"])
def test_a_row_that_cannot_be_verified_is_a_failure_of_the_data_never_0(grade, dataset, label, named, answer):
    result = grade(answer, dataset, label)
    assert result.value is None
    assert result.failure.kind is FailureKind.INVALID_VARIABLE
    assert named in result.failure.message


def test_a_row_without_the_fields_is_a_failure_of_the_data():
    result = build_grader(parse_grader(SPEC)).grade(Sample("72"), {"answer": "72"})
    assert result.failure.kind is FailureKind.INVALID_VARIABLE


def test_verifiers_can_be_renamed(grade):
    assert (
        grade("x", "ifeval", '{"func_name": "validate_no_commas"}', remap={"ifeval": "ifeval_old"}).value == 1
    )
    assert grade("72", "My-Own", "72", remap={"my-own": "GSM8K"}).value == 1
    for target in ("nope", "rubric"):
        with pytest.raises(GraderInvalid) as caught:
            build_grader(parse_grader(SPEC | {"remap": {"gsm8k": target}}))
        assert caught.value.param == "remap"


def test_code_needs_the_sandbox_and_other_rows_do_not():
    grader = build_grader(parse_grader(SPEC), Services(why={"sandbox": "no Landlock here"}))
    assert grader.grade(Sample("72"), {"dataset": "gsm8k", "ground_truth": "72"}).value == 1
    missing = grader.grade(Sample(FENCED), {"dataset": "code", "ground_truth": CODE})
    assert missing.failure.kind is FailureKind.PYTHON_SERVER
    assert "no Landlock here" in missing.failure.message


def test_a_least_share_of_tests(grade):
    assert grade(FENCED.replace("+", "*"), "code", CODE, min_share=0.6).value == 0


def test_rows_of_verl_are_read_through_other_templates():
    spec = SPEC | {"dataset": "{{item.data_source}}", "ground_truth": "{{item.reward_model.ground_truth}}"}
    row = {"data_source": "openai/gsm8k", "reward_model": {"style": "rule", "ground_truth": "72"}}
    assert build_grader(parse_grader(spec)).grade(Sample("#### 72"), row).value == 1


def test_every_data_source_of_verl_has_a_verifier():
    assert all(find_verifier(source, {}) in VERIFIERS for source in VERL)
    assert not REFUSED.keys() & VERIFIERS.keys()


HOSTILE = ["", "x" * 300_000, "<answer>" * 60_000, "<finish>" * 60_000, "</think>" * 60_000, "#### " * 60_000]


@pytest.mark.parametrize("answer", HOSTILE, ids=[answer[:8] or "empty" for answer in HOSTILE])
@pytest.mark.parametrize("name", sorted({case[0] for case in CASES} - {"code", "code_stdio"}))
def test_hostile_answers_get_little(grade, name, answer):
    label = next(case[1] for case in CASES if case[0] == name)
    result = grade(answer, name, label, tokens=50)
    assert result.value is not None
    assert result.value <= 0.5 or name.startswith("ifeval")
    assert len(result.reason) < 1_000
