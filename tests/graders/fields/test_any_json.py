"""Any JSON value equals itself, whatever it is made of and by whichever inferred rule it is compared."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graders import Sample, build_grader, parse_grader
from tests.properties import examples

SPEC = {"type": "fields", "name": "f", "input": "{{sample.output_json}}", "reference": "{{item.reference}}"}
LARGEST = 2**63 - 1
"""Of the integers that strict JSON takes."""

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-LARGEST, LARGEST)
    | st.integers(-2, 2)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.sampled_from(["", " ", "a", "1", "1.0", "yes", "[]", "−5"])
)
keys = st.sampled_from(["a", "b", "c.d", ""]) | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)
objects = st.dictionaries(keys, values, max_size=4)


def grade(answer: Any, reference: dict[str, Any], **changes: Any) -> float:
    grader = build_grader(parse_grader(SPEC | changes))
    result = grader.grade(Sample(json.dumps(answer)), {"reference": reference})
    assert result.failure is None, result.failure
    assert result.value is not None
    return result.value


def turned(value: Any) -> Any:
    """The same value with its keys in another order and whole numbers written as floats, and back."""
    match value:
        case dict():
            return {key: turned(value[key]) for key in reversed(value)}
        case list():
            return [turned(one) for one in value]
        case int() if not isinstance(value, bool) and abs(value) < 2**53:
            return float(value)
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
        case _:
            return value


@examples(80)
@given(objects)
def test_any_object_equals_itself(reference):
    assert grade(reference, reference) == 1
    assert grade(turned(reference), reference) == 1


@examples(40)
@given(objects, st.sampled_from(["set", "multiset", "list"]), st.sampled_from(["normalized", "exact"]))
def test_any_list_of_values_equals_itself_by_each_rule_for_lists(reference, compare, items):
    reference = {"x": [*reference.values(), *reference.values()]}
    for rule in (items, {"compare": items}, {"compare": "list", "items": items}):
        fields = {"x": {"compare": compare, "items": rule}}
        if isinstance(rule, dict) and rule["compare"] == "list":
            reference = {"x": [[one] for one in reference["x"]]}
        assert grade(reference, reference, fields=fields) == 1
        assert grade(turned(reference), reference, fields=fields) == 1


@examples(40)
@given(st.lists(objects, max_size=4), st.sampled_from(["set", "multiset", "list"]))
def test_any_list_of_objects_equals_itself(items, compare):
    fields = {"x": {"compare": compare, "items": {"compare": "object"}}}
    assert grade({"x": items}, {"x": items}, fields=fields) == 1
    assert grade(turned({"x": items}), {"x": items}, fields=fields) == 1


@examples(40)
@given(objects, values)
def test_another_value_of_a_field_is_no_failure(reference, other):
    for key in reference:
        assert 0 <= grade(reference | {key: other}, reference) <= 1


@pytest.mark.parametrize(
    ("reference", "wrong"),
    [
        ({"a": [{"b": 0}, {"b": []}]}, [{"a": [{"b": 0}, {"b": [1]}]}, {"a": [{"b": 1}, {"b": []}]}]),
        ({"a": [{"b": []}, {"b": [{"c": 1}]}]}, [{"a": [{"b": []}, {"b": [{"c": 2}]}]}]),
        ({"a": [{"b": None}, {"b": 2}]}, [{"a": [{"b": None}, {"b": 3}]}, {"a": [{"b": 0}, {"b": 2}]}]),
        ({"a": [{"b": {}}, {"b": "x"}]}, [{"a": [{"b": {}}, {"b": "y"}]}]),
        ({"a": [[1.0]]}, [{"a": [[2]]}]),
        ({"a": [[], {}, None, False, 0, ""]}, [{"a": [[], {}, None, True, 0, ""]}]),
    ],
)
def test_what_differs_is_not_equal(reference, wrong):
    assert grade(reference, reference) == 1
    for answer in wrong:
        assert grade(answer, reference) < 1


@pytest.mark.parametrize("compare", ["set", "multiset", "list"])
def test_a_long_list_of_objects_equals_itself(compare):
    lines = [{"name": f"item {at}", "price": at} for at in range(100)]
    fields = {"x": {"compare": compare, "items": {"compare": "object"}}}
    assert grade({"x": lines}, {"x": lines}, fields=fields) == 1
    assert 0.9 < grade({"x": lines[:-1]}, {"x": lines}, fields=fields) < 1
