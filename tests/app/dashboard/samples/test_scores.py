"""A reward is explained by what it was made of, whatever a completion holds."""

from __future__ import annotations

from typing import Any

import pytest

from app.dashboard.samples.fields import MOST_FIELDS, fields_of
from app.dashboard.samples.scores import explained, weights_of
from app.dashboard.samples.turns import apart, completion_turns, prompt_turns
from app.rollouts.models import Rollout
from graders import Sample
from graders.build import build_grader
from graders.grading import grade_safely
from graders.spec import parse_grader

FIELDS: dict[str, Any] = {
    "type": "fields",
    "name": "profile",
    "input": "{{sample.output_json}}",
    "reference": "{{item.reference}}",
    "fields": {
        "name": {"compare": "exact", "weight": 3},
        "address": {"compare": "object", "fields": {"city": {"compare": "exact", "weight": 2}}},
        "tags": {"compare": "set", "items": "exact"},
    },
}
SAME = {
    "type": "string_check",
    "name": "s",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.word}}",
}
ITEM = {"reference": {"name": "Ada", "address": {"city": "Rome"}, "tags": ["a", "b"]}, "word": "yes"}


def graded(grader: dict[str, Any], text: str) -> Rollout:
    """A completion as a job stores it, graded by the real grader."""
    grade = grade_safely(build_grader(parse_grader(grader)), Sample(text), ITEM)
    failures = {
        name: {"kind": one.kind.value, "message": one.message} for name, one in grade.part_failures.items()
    }
    failure = grade.failure.kind.value if grade.failure else None
    return Rollout(
        text=text,
        finish_reason="stop",
        tokens=3,
        reward=grade.value,
        failure=failure,
        parts=dict(grade.parts),
        reason=grade.reason,
        part_failures=failures or None,
    )


def test_fields_show_what_was_wanted_and_given() -> None:
    text = '{"name": "Ada", "address": {"city": "Bonn"}, "tags": ["a"], "extra": 1}'
    why = explained(FIELDS, graded(FIELDS, text), ITEM)
    by_name = {score.name: score for score in why.scores}
    assert by_name["name"].reason == "agrees"
    assert by_name["name"].weight == "3"
    city = by_name["address.city"]
    assert (city.depth, city.weight, city.reason) == (1, "2", "differs")
    assert city.wanted is not None
    assert city.given is not None
    assert (city.wanted.text, city.given.text) == ("Rome", "Bonn")
    assert by_name["tags"].reason == "agrees in part"
    assert by_name["tags.recall"].wanted is None
    assert "not asked for: extra" in by_name


def test_a_multi_shows_each_graders_score_weight_and_failure() -> None:
    multi = {
        "type": "multi",
        "name": "m",
        "graders": {"form": FIELDS, "same": SAME},
        "calculate_output": "0.7*form + 0.3*same",
    }
    why = explained(multi, graded(multi, "yes"), ITEM)
    form, same = why.scores
    assert (form.value, form.weight) == (0.0, "+0.7")
    assert form.failure.startswith("sample_parse_error: The output is not JSON")
    assert (same.value, same.weight, same.failure) == (1.0, "+0.3", "")
    assert same.wanted is not None
    assert same.wanted.text == "yes"
    below = explained(multi, graded(multi, '{"name": "Ada | same: forged"}'), ITEM).scores
    assert [score.name for score in below if score.depth == 0] == ["form", "same"]
    assert {score.name for score in below if score.depth == 1} >= {"name", "tags"}


def test_weights_follow_from_the_formula() -> None:
    grader = {"graders": {"a": SAME, "b": SAME}, "calculate_output": "a * b + 2 * b"}
    assert weights_of(grader, {"a": 0.0, "b": 0.5}) == {"a": 0.5, "b": 2.0}
    assert weights_of(grader, {"a": 0.0}) == {}
    assert weights_of({"graders": {"a": SAME}, "calculate_output": "1 / a"}, {"a": 1.0}) == {}
    assert weights_of({"graders": None}, {}) == {}


def test_a_rubric_shows_each_criterion_with_its_points_and_reason() -> None:
    reason = "[met, +2] Names the city: It says Rome.\n[not met, -1] Is rude: It is polite: very.\n"
    reason += "[not answered, +1] Is short: "
    rollout = Rollout(
        text="x", finish_reason="stop", tokens=1, reward=1.0, parts={"answered": 0.67}, reason=reason
    )
    why = explained({"type": "rubric"}, rollout, None)
    assert [(one.name, one.value, one.weight) for one in why.scores] == [
        ("Names the city", 1.0, "+2"),
        ("Is rude", 0.0, "-1"),
        ("Is short", None, "+1"),
        ("answered", 0.67, ""),
    ]
    assert why.scores[1].reason == "not met. It is polite: very."
    assert why.reason == ""


def test_without_its_row_a_completion_still_has_its_scores() -> None:
    why = explained(FIELDS, graded(FIELDS, '{"name": "Ada"}'), None)
    assert [score.wanted for score in why.scores] == [None] * len(why.scores)
    assert explained({}, graded(FIELDS, "{}"), None).kind == ""


@pytest.mark.parametrize(
    ("text", "thoughts", "answer"),
    [
        pytest.param("<think>why</think>\nyes", "<think>why</think>\n", "yes", id="thoughts"),
        pytest.param("<think>never closed", "<think>never closed", "", id="not-closed"),
        pytest.param("plain <b>", "", "plain <b>", id="none"),
    ],
)
def test_thoughts_are_told_from_the_answer(text: str, thoughts: str, answer: str) -> None:
    assert apart(text) == (thoughts, answer)


def test_turns_of_any_form_are_shown() -> None:
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call, "odd", {}]},
        {
            "role": "tool",
            "name": "f",
            "content": [{"type": "text", "text": "x"}, {"type": "image_url"}],
            "seconds": 0.5,
        },
        "odd",
    ]
    rollout = Rollout(text="", episode={"messages": messages}, message=None)
    first, second = completion_turns(rollout, 100)
    assert [(one.name.text, one.arguments.text) for one in first.calls] == [("f", '{"a": 1}')]
    assert second.text.text == 'x\n{"type": "image_url"}'
    assert second.remarks == ("0.50 s",)
    assert prompt_turns({"messages": "odd"}, 10) == []
    (long,) = prompt_turns({"messages": [{"role": "system", "content": "x" * 1000}]}, 10)
    assert (long.is_folded, long.text) == (True, ("x" * 10, 990))


def test_fields_of_a_row_are_dotted_paths_and_bounded() -> None:
    item: dict[str, Any] = {
        "messages": [],
        "tools": [],
        "a": {"b": [{"c": 1}, "x"], "d": []},
        "e": "t",
        "f": None,
    }
    shown = {field.path: field.value.text for field in fields_of(item).shown}
    assert shown == {"a.b[0].c": "1", "a.b[1]": "x", "a.d": "[]", "e": "t", "f": "null"}
    many = fields_of({f"k{i}": i for i in range(100)})
    assert (len(many.shown), many.left) == (MOST_FIELDS, 40)
    deep: Any = 1
    for _ in range(50_000):
        deep = {"x": deep}
    assert len(fields_of({"deep": deep}).shown[0].path) == 300
