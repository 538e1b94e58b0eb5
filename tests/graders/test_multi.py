import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from graders import Failure, FailureKind, Grade, Sample, build_grader, dump_grader, parse_grader
from graders.formula import Formula
from graders.intervals import Interval
from graders.multi import Multi, MultiOfGroups
from graders.types import TokenUsage


def check(path, reference, operation="eq"):
    return {
        "type": "string_check",
        "input": f"{{{{{path}}}}}",
        "reference": reference,
        "operation": operation,
    }


def multi(formula, **graders):
    return build_grader(parse_grader({"type": "multi", "graders": graders, "calculate_output": formula}))


@dataclass(frozen=True)
class Fixed:
    """A grader that always answers the same."""

    answer: Grade
    name: str = "fixed"
    type: str = "fixed"

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return self.answer


def of_fixed(formula, **answers):
    graders = {key: Fixed(answer) for key, answer in answers.items()}
    return Multi("multi", graders, Formula.parse(formula, frozenset(graders)))


def failed(kind):
    return Grade(None, Failure(kind, "because"))


def test_value_is_the_formula_over_the_parts():
    grader = multi("0.25 * a + 0.75 * b", a=check("sample.output_text", "x"), b=check("item.x", "y"))
    grade = grader.grade(Sample("x"), {"x": "no"})
    assert grade.value == 0.25
    assert grade.parts == {"a": 1.0, "b": 0.0}
    assert not grade.part_failures


def test_a_part_that_does_not_parse_counts_as_0_and_is_named():
    grader = multi("a + b", a=check("sample.output_json.x", "1"), b=check("sample.output_text", "nope"))
    grade = grader.grade(Sample("nope"), {})
    assert grade.value == 1.0
    assert grade.parts == {"a": 0.0, "b": 1.0}
    assert grade.part_failures["a"].kind is FailureKind.SAMPLE_PARSE


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if kind is not FailureKind.SAMPLE_PARSE])
def test_any_other_failure_of_a_part_is_the_failure_of_the_whole(kind):
    grade = of_fixed("a + b", a=Grade(1.0), b=failed(kind)).grade(Sample(""), {})
    assert grade.value is None
    assert grade.failure.kind is kind
    assert grade.failure.message == "b: because"
    assert grade.parts == {"a": 1.0}
    assert set(grade.part_failures) == {"b"}


def test_a_failure_of_the_grader_outweighs_one_of_the_completion():
    grade = of_fixed("a + b", a=failed(FailureKind.SAMPLE_PARSE), b=failed(FailureKind.PYTHON_SERVER)).grade(
        Sample(""), {}
    )
    assert grade.failure.kind is FailureKind.PYTHON_SERVER
    assert set(grade.part_failures) == {"a", "b"}


def test_a_failing_part_the_formula_does_not_use_still_fails_the_whole():
    grade = of_fixed("a", a=Grade(1.0), b=failed(FailureKind.INVALID_VARIABLE)).grade(Sample(""), {})
    assert grade.failure.kind is FailureKind.INVALID_VARIABLE


def test_a_formula_without_value_is_a_formula_parse_error_not_a_0():
    grade = of_fixed("1 / a", a=Grade(0.0)).grade(Sample(""), {})
    assert grade.value is None
    assert grade.failure.kind is FailureKind.FORMULA_PARSE
    assert grade.parts == {"a": 0.0}


def test_parts_of_parts_are_named_below_their_grader():
    profile = {"type": "fields", "input": "{{sample.output_json}}", "reference": "{{item.reference}}"}
    grader = multi("profile", profile=profile)
    item = {"reference": {"city": "Rome", "address": {"zip": "1"}}}
    grade = grader.grade(Sample(json.dumps({"city": "rome", "address": {"zip": "2"}})), item)
    assert grade.value == 0.5
    assert grade.parts == {
        "profile": 0.5, "profile.city": 1.0, "profile.address": 0.0, "profile.address.zip": 0.0
    }  # fmt: skip
    assert "profile: address.zip differs" in grade.reason


@pytest.mark.parametrize(
    "output",
    ["", "x" * 1_000_000, "{" * 100_000, "[" * 50 + "]" * 50, '{"x": 1e999}', '{"x": NaN}',
    '{"x": "\ud800"}',
     '{"x": "{{item.y}}"}', '{"x": {"x": {}}}', "null", '```json\n{"x": 1}\n```', '{"x": 1}{"x": 1}'],
)  # fmt: skip
def test_hostile_output_gets_a_value_or_a_named_failure(output):
    grader = multi(
        "(a + b) / 2", a=check("sample.output_json.x", "1"), b=check("sample.output_text", "q", "ilike")
    )
    grade = grader.grade(Sample(output), {"y": 1})
    assert grade.value == 0.0
    assert set(grade.part_failures) <= {"a"}


@pytest.mark.parametrize(
    ("formula", "text", "value", "reward"),
    [
        pytest.param("0 - wrong", "no json", 0.0, -1.0, id="penalty"),
        pytest.param("0 - wrong", '{"x": 2}', -1.0, -1.0, id="wrong"),
        pytest.param("0 - wrong", '{"x": 1}', 0.0, 0.0, id="right"),
        pytest.param("0.5 * said + 0.5 * right", "no json", 0.5, 0.5, id="what-could-be-read-stands"),
        pytest.param("said - 2 * wrong", "no json", 1.0, -1.0, id="only-what-failed-is-at-its-worst"),
        pytest.param("right - wrong", "no json", 0.0, -1.0, id="both-failed"),
        pytest.param("1 - abs(right - 0.5)", "no json", 0.5, 0.5, id="least-in-the-middle"),
        pytest.param("log(0.5 + wrong - wrong)", "no json", math.log(0.5), math.log(0.5), id="no-least"),
        pytest.param("log(said - wrong)", "no json", 0.0, 0.0, id="no-least-but-a-value"),
    ],
)
def test_what_does_not_parse_trains_as_the_least_that_it_could_be_worth(formula, text, value, reward):
    grader = multi(
        formula,
        wrong=check("sample.output_json.x", "1", "ne"),
        right=check("sample.output_json.x", "1"),
        said=check("item.said", "yes"),
    )
    grade = grader.grade(Sample(text), {"said": "yes"})
    assert grade.value == pytest.approx(value)
    assert grade.reward == pytest.approx(reward)
    assert bool(grade.part_failures) == (text == "no json")


def test_a_failed_part_may_be_worth_less_than_0_by_itself():
    answers = {"judge": failed(FailureKind.SAMPLE_PARSE), "other": Grade(0.25)}
    formula = Formula.parse("judge + other", frozenset(answers))
    graders = {key: Fixed(answer) for key, answer in answers.items()}
    grade = Multi("multi", graders, formula, {"judge": Interval(-5, 5)}).grade(Sample(""), {})
    assert (grade.value, grade.reward) == (0.25, -4.75)


def test_without_a_range_a_failed_part_stays_0():
    grade = of_fixed("0 - a", a=failed(FailureKind.SAMPLE_PARSE)).grade(Sample(""), {})
    assert (grade.value, grade.reward) == (0, 0)


@pytest.mark.parametrize(
    ("formula", "kind"),
    [
        pytest.param("a", FailureKind.SAMPLE_PARSE, id="does-not-parse"),
        pytest.param("a", FailureKind.PYTHON_RUNTIME, id="code-raises"),
        pytest.param("a", FailureKind.MODEL_PARSE, id="judge-not-read"),
        pytest.param("a", FailureKind.INVALID_VARIABLE, id="no-such-field"),
        pytest.param("b / 0", None, id="formula"),
    ],
)
def test_invalid_grade_is_the_grade_where_there_is_no_valid_value(formula, kind):
    answers = {"a": failed(kind) if kind else Grade(1.0), "b": Grade(0.5)}
    graders = {key: Fixed(answer) for key, answer in answers.items()}
    parsed = Formula.parse(formula, frozenset(answers))
    grade = Multi("multi", graders, parsed, {"a": Interval(-9, 1)}, invalid_grade=-0.25).grade(Sample(""), {})
    assert (grade.value, grade.reward, grade.failure) == (-0.25, -0.25, None)
    assert grade.reason.startswith("invalid_grade, because ")
    assert {failure.kind for failure in grade.part_failures.values()} == {kind or FailureKind.FORMULA_PARSE}


@pytest.mark.parametrize(
    "kind", [FailureKind.MODEL_SERVER, FailureKind.ENDPOINT_SERVER, FailureKind.PYTHON_SERVER]
)
def test_an_outage_is_no_invalid_grade(kind):
    graders = {"a": Fixed(failed(FailureKind.SAMPLE_PARSE)), "b": Fixed(failed(kind))}
    formula = Formula.parse("a + b", frozenset(graders))
    grade = Multi("multi", graders, formula, invalid_grade=0.0).grade(Sample(""), {})
    assert grade.value is None
    assert grade.failure.kind is kind


def test_invalid_grade_is_read_given_back_and_counts_in_the_range():
    raw = {
        "type": "multi",
        "name": "m",
        "graders": {"a": {**check("sample.output_json.x", "1"), "name": "a"}},
        "calculate_output": "a",
        "invalid_grade": -1,
    }
    spec = parse_grader(raw)
    assert dump_grader(spec) == raw
    assert spec.reward_range == Interval(-1, 1)
    grader = build_grader(spec)
    assert grader.grade(Sample('{"x": "1"}'), {}).value == 1.0
    assert grader.grade(Sample("no json"), {}).value == -1.0


@dataclass(frozen=True)
class Longest(Fixed):
    """A grader of groups: 1 for the longest, and all of its cost with the first."""

    def grade_group(self, samples, item, base=None):
        longest = max(len(sample.output_text) for sample in samples)
        first = {"usage": {"j": TokenUsage(8, 2, calls=1)}, "seconds": 2.0}
        return [
            Grade(float(len(sample.output_text) == longest), **(first if i == 0 else {}))
            for i, sample in enumerate(samples)
        ]


def test_a_part_of_groups_sees_all_completions_and_the_others_each_one_by_itself():
    graders = {
        "long": Longest(Grade(0.0)),
        "is_x": build_grader(parse_grader(check("sample.output_text", "x"))),
    }
    formula = Formula.parse("long + is_x / 2", frozenset(graders))
    found = MultiOfGroups("both", graders, formula).grade_group([Sample("x"), Sample("xyz")], {})
    assert [grade.value for grade in found] == [0.5, 1.0]
    assert [grade.parts for grade in found] == [{"long": 0.0, "is_x": 1.0}, {"long": 1.0, "is_x": 0.0}]
    assert [grade.part_usage for grade in found] == [{"long": {"j": TokenUsage(8, 2, calls=1)}}, {}]
    assert found[0].seconds >= 2 > found[1].seconds
