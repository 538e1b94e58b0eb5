"""Forms in which answers and references are written, each with right and wrong answers (`forms.json`)."""

import json
import re
from pathlib import Path

import pytest

from graders import Sample, build_grader, parse_grader
from graders.math.prose import last_value, plain_line
from tests.shared_data import shared_path, shared_rows

FORMS = json.loads(Path(__file__).with_name("forms.json").read_text())
LIBRARY = json.loads(Path(__file__).with_name("math_verify_cases.json").read_text())
REASONS = {
    "box": "the last box leads, whatever follows it",
    "boxes": "boxes are one list only where commas, semicolons, and, or stand between them",
    "comma": "a comma parts the members of a list, or thousands, never decimals",
    "cut": "a reference whose box is cut off is a fault of the data",
    "lines": "dollar signs aside, the last number of the text is the answer",
    "option": "a relation equals an interval only as the reference",
    "sign": "the library drops what it cannot parse",
}
SPEC = {
    "type": "math",
    "name": "answer",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
}


def grade(output, answer, **changes):
    return build_grader(parse_grader(SPEC | changes)).grade(Sample(output), {"answer": answer})


@pytest.mark.parametrize("verdict", ["right", "wrong"])
@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_judged_by_its_value(form, verdict):
    judged = {(output, answer): grade(output, answer).value for output, answer in FORMS[form][verdict]}
    assert judged == dict.fromkeys(judged, float(verdict == "right"))


@pytest.mark.parametrize(
    "tower",
    [
        "9^{9^{9^{9}}}",
        "10^{10^{10}}",
        "((9!)!)!",
        "(10^{10})!",
        r"\binom{10^9}{5 \cdot 10^8}",
        r"\gcd(10^{10^{10}}, 6)",
        r"\prod_{k=1}^{10^9} k",
        "x + 9^{9^{9}} - 9^{9^{9}}",
        "2^{-9^{9^{9}}}",
        r"\sqrt{9^{9^9}}",
        r"\{9^{9^9}, 1\}",
    ],
)
def test_a_number_too_large_to_compute_is_told_before_it_is_computed(tower):
    result = grade(rf"\boxed{{{tower}}}", "x+5")
    assert result.value == 0
    assert "larger than 20,000 digits" in result.reason


@pytest.mark.parametrize(
    "deep", ["(" * 900 + "x" + ")" * 900, "[" * 1_900, "{" * 1_900, "|" * 1_900, "x^" * 900 + "x"]
)
def test_an_expression_too_deep_to_parse_is_none(deep):
    result = grade(rf"The answer is {deep}", "x+5", time_limit=2)
    assert (result.value, result.failure) == (0, None)
    assert "too long" not in result.reason


def test_a_large_number_within_the_bound_is_computed():
    assert grade(r"\boxed{2^{1000} \cdot x}", r"4^{500} x").value == 1
    assert grade(r"\boxed{\frac{100!}{98!} x}", "9900x").value == 1


def test_the_same_tower_is_the_same_answer():
    assert grade(r"\boxed{10^{10^{10}}}", "10^{10^{10}}").value == 1


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("The area is 3.14 m^2.", "3.14 m^2"),
        ("So 48 + 24 = 72 eggs", "72"),
        ("In year 3, 12 remain.", "12"),
        ("The roots are 2 and 3.", "2 and 3"),
        ("AZYUK2A", None),
        ("version v1.2", None),
        ("| Total | 42 |", "42"),
        ("It is 5!", "5"),
    ],
)
def test_the_value_of_a_line_is_its_last_whole_expression(line, value):
    assert last_value(plain_line(line)) == value


@pytest.mark.parametrize("data", ["gsm8k-train-500", "svamp-200"])
def test_amounts_before_an_answer_change_nothing(data):
    grader = build_grader(parse_grader(SPEC))
    for row in shared_rows(f"data/{data}"):
        right = f"She pays $5 and gets $2 back, 3 * $4 = $12.\nIn all that makes {row['answer']}."
        assert grader.grade(Sample(right), row).value == 1
        assert grader.grade(Sample(right.replace(f"{row['answer']}.", f"{row['answer']}/7.")), row).value == 0


def shared_cases():
    for file in sorted(shared_path("cases/graders").glob("*.json")):
        if re.match(r"math-(?!thoughts)|number-typographic", file.name):
            yield from json.loads(file.read_text())["cases"]


def test_cases_from_public_reports():
    for case in shared_cases():
        grader = build_grader(parse_grader(case["grader"]))
        result = grader.grade(Sample(case["sample"]), case["item"])
        assert (result.value, result.failure) == (case["expected"], None), case


@pytest.mark.long
def test_verdicts_of_math_verifys_own_tests_differ_only_where_the_table_says_why():
    for case in LIBRARY:
        options = {option: case[option] for option in ("strict", "decimals") if option in case}
        result = grade(case["answer"], case["reference"], **options)
        assert result.value == case.get("ours", case["library"]), case
    assert {case["why"] for case in LIBRARY if "why" in case} == REASONS.keys()
