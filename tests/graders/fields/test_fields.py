import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graders import FailureKind, Sample, build_grader, parse_grader
from tests.properties import examples
from tests.shared_data import shared_rows

REFERENCE = {
    "university": "University of Bologna",
    "programming_languages": ["Python", "C++", "Haskell"],
    "city": "Bologna",
    "state": "Emilia-Romagna",
}
PROFILE = {
    "type": "fields",
    "name": "profile",
    "input": "{{sample.output_json}}",
    "reference": "{{item.reference}}",
    "fields": {
        "university": {"compare": "normalized"},
        "programming_languages": {"compare": "set", "items": "normalized"},
        "city": {"compare": "normalized", "weight": 1.0},
        "state": {"compare": "normalized"},
    },
    "extra_keys": "penalize",
}
EVERY_LANGUAGE = [
    "Python", "C", "C++", "C#", "Java", "JavaScript", "TypeScript", "Go", "Rust", "Ruby", "PHP", "Perl",
    "Haskell",
    "OCaml", "Scala", "Kotlin", "Swift", "R", "Julia", "MATLAB", "Fortran", "COBOL", "Lisp", "Prolog",
    "Erlang",
]  # fmt: skip


def grade(answer, reference=REFERENCE, **changes):
    output = answer if isinstance(answer, str) else json.dumps(answer)
    return build_grader(parse_grader(PROFILE | changes)).grade(Sample(output), {"reference": reference})


def inferred(answer, reference, **changes):
    spec = {key: value for key, value in PROFILE.items() if key != "fields"}
    return build_grader(parse_grader(spec | changes)).grade(
        Sample(json.dumps(answer)), {"reference": reference}
    )


def profile(**changes):
    return REFERENCE | changes


class TestTheProfileExample:
    def test_a_perfect_answer_scores_one_everywhere(self):
        perfect = grade(REFERENCE)
        assert perfect.value == 1
        assert set(perfect.parts.values()) == {1.0}
        assert perfect.reason == "all fields agree"

    def test_every_field_has_a_part(self):
        assert set(grade({}).parts) == {
            "university", "programming_languages", "programming_languages.precision",
            "programming_languages.recall", "city", "state",
        }  # fmt: skip
        assert set(grade({}).parts.values()) == {0.0}

    def test_spelling_order_and_case_do_not_matter(self):
        answer = {
            "state": "emilia romagna",
            "city": " BOLOGNA",
            "programming_languages": ["haskell", "c++", "PYTHON"],
            "university": "University of Bologna.",
        }
        assert grade(answer).value == 1

    def test_listing_every_language_is_worse_than_an_honest_part_of_them(self):
        everything = grade(profile(programming_languages=EVERY_LANGUAGE))
        honest = grade(profile(programming_languages=["Python"]))
        assert everything.parts["programming_languages.recall"] == 1
        assert everything.parts["programming_languages"] < honest.parts["programming_languages"]
        assert everything.value < honest.value < 1

    def test_repeating_a_right_language_is_worse_than_saying_it_once(self):
        once = grade(profile(programming_languages=["Python"]))
        often = grade(profile(programming_languages=["Python", "python", "PYTHON!"]))
        assert often.value < once.value

    def test_c_is_not_c_plus_plus(self):
        answer = grade(profile(programming_languages=["Python", "C", "Haskell"]))
        assert answer.parts["programming_languages"] == pytest.approx(2 / 3)

    def test_a_missing_key_costs_its_field(self):
        answer = {key: value for key, value in REFERENCE.items() if key != "state"}
        assert grade(answer).value == 3 / 4
        assert grade(answer).parts["state"] == 0
        assert "state is missing" in grade(answer).reason

    def test_each_extra_key_counts_as_one_wrong_field(self):
        assert grade(profile(age=5)).value == 4 / 5
        assert grade(profile(age=5, hobby=None)).value == 4 / 6
        assert grade(profile(age=5), extra_keys="ignore").value == 1
        assert "not asked for: age" in grade(profile(age=5)).reason

    def test_weights_are_shares(self):
        fields = PROFILE["fields"] | {"city": {"compare": "exact", "weight": 5}}
        assert grade(profile(city="Rome"), fields=fields).value == 3 / 8

    def test_a_field_without_weight_is_only_measured(self):
        fields = PROFILE["fields"] | {"city": {"compare": "exact", "weight": 0}}
        answer = grade(profile(city="Rome"), fields=fields)
        assert (answer.value, answer.parts["city"]) == (1, 0)

    def test_a_text_instead_of_a_list_is_wrong(self):
        assert (
            grade(profile(programming_languages="Python, C++, Haskell")).parts["programming_languages"] == 0
        )
        assert grade(profile(programming_languages={"Python": 1})).value == 3 / 4

    def test_values_in_the_wrong_fields_are_wrong(self):
        assert grade(profile(city="Emilia-Romagna", state="Bologna")).value == 1 / 2


@pytest.mark.parametrize(
    "output",
    [
        pytest.param("", id="empty"),
        pytest.param("I do not know.", id="prose"),
        pytest.param("[]", id="array"),
        pytest.param('"text"', id="text"),
        pytest.param("null", id="null"),
        pytest.param("```json\n" + json.dumps(REFERENCE) + "\n```", id="fenced"),
        pytest.param("Here it is: " + json.dumps(REFERENCE), id="chatty"),
        pytest.param(json.dumps(REFERENCE)[:-1], id="cut-off"),
        pytest.param(json.dumps(REFERENCE) * 2, id="twice"),
        pytest.param('{"city": "Rome", "city": "Bologna"}', id="two-guesses-by-duplicate-key"),
        pytest.param('{"a":' * 100_000, id="deep"),
        pytest.param('{"city": NaN}', id="nan"),
        pytest.param('{"city": 1e999}', id="infinite"),
        pytest.param('{"city": "\\ud800"}', id="surrogate"),
        pytest.param("<json>" * 10_000 + json.dumps(REFERENCE), id="nested-tags"),
        pytest.param(json.dumps(json.dumps(REFERENCE)), id="json-in-a-json-string"),
    ],
)
def test_an_output_that_is_no_object_is_a_sample_parse_error(output):
    answer = grade(output)
    if output == json.dumps(json.dumps(REFERENCE)):
        assert answer.value == 1  # text that holds JSON is parsed, on either side
        return
    assert answer.value is None
    assert answer.failure.kind is FailureKind.SAMPLE_PARSE


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({}, id="empty-object"),
        pytest.param(dict.fromkeys(REFERENCE), id="nulls"),
        pytest.param(dict.fromkeys(REFERENCE, "{{item.reference}}"), id="names-the-reference"),
        pytest.param({key: [] for key in REFERENCE}, id="empty-lists"),
        pytest.param({key: {"city": "Bologna"} for key in REFERENCE}, id="objects-everywhere"),
        pytest.param({key: json.dumps(REFERENCE) for key in REFERENCE}, id="quotes-everything-everywhere"),
        pytest.param({"city": "Bologna Rome Paris " * 20_000}, id="huge-text"),
        pytest.param({"programming_languages": [f"lang{i}" for i in range(30_000)]}, id="huge-list"),
        pytest.param({f"key{i}": 1 for i in range(30_000)}, id="huge-object"),
        pytest.param({"city": "Вologna", "state": "Emilia\u2800Romagna"}, id="look-alikes"),
        pytest.param({"reference": REFERENCE}, id="wrapped"),
        pytest.param({"__class__": "Bologna", "": "Bologna", "city.": "Bologna"}, id="odd-keys"),
    ],
)
def test_hostile_objects_score_0(answer):
    result = grade(answer)
    assert result.value == 0
    assert len(result.reason) < 2_000


def test_the_answer_may_sit_below_a_key_or_be_text():
    below = grade(json.dumps({"result": REFERENCE}), input="{{sample.output_json.result}}")
    assert below.value == 1
    assert grade(REFERENCE, input="{{sample.output_text}}").value == 1
    assert grade("no", input="{{sample.output_text}}").failure.kind is FailureKind.SAMPLE_PARSE
    built = grade('"Bologna"', {"city": "Bologna"}, input='{"city": {{sample.output_text}}}')
    assert built.value == 1


@pytest.mark.parametrize(
    "reference",
    [
        pytest.param([1], id="array"),
        pytest.param("not json", id="text"),
        pytest.param(5, id="number"),
        pytest.param(None, id="null"),
        pytest.param("[1]", id="array-in-text"),
        pytest.param({"town": "Rome"}, id="none-of-the-fields"),
        pytest.param(REFERENCE | {"programming_languages": "Python"}, id="text-where-the-rule-wants-a-list"),
    ],
)
def test_an_unusable_reference_is_an_invalid_variable_error(reference):
    result = grade(REFERENCE, reference)
    assert result.value is None
    assert result.failure.kind is FailureKind.INVALID_VARIABLE


def test_a_reference_may_be_text_that_holds_json():
    assert grade(REFERENCE, json.dumps(REFERENCE)).value == 1


def test_a_row_without_a_reference_is_an_invalid_variable_error():
    grader = build_grader(parse_grader(PROFILE))
    assert grader.grade(Sample("{}"), {}).failure.kind is FailureKind.INVALID_VARIABLE


def test_null_in_the_reference_wants_null():
    reference = profile(state=None)
    assert grade(profile(state=None), reference).value == 1
    assert grade(profile(state="Lazio"), reference).value == 3 / 4
    assert grade({k: v for k, v in REFERENCE.items() if k != "state"}, reference).value == 3 / 4


def test_a_declared_field_the_reference_lacks_is_not_asked_for():
    reference = {key: value for key, value in REFERENCE.items() if key != "state"}
    assert grade(reference, reference).value == 1
    assert grade(reference | {"state": None}, reference).value == 1
    assert grade(reference | {"state": "Lazio"}, reference).value == 3 / 4


def test_a_reference_key_without_a_rule_is_neither_graded_nor_extra():
    fields = {"city": {"compare": "exact"}}
    assert grade(REFERENCE, fields=fields).value == 1
    assert set(grade(REFERENCE, fields=fields).parts) == {"city"}


def test_nested_fields_by_rule():
    fields = {
        "address": {
            "compare": "object",
            "weight": 3,
            "fields": {"city": {"compare": "exact"}, "since": {"compare": "date"}},
        },
        "age": {"compare": "number", "abs_tolerance": 1},
    }
    reference = {"address": {"city": "Rome", "since": "2024-03-05"}, "age": 30}
    answer = {"address": {"city": "Rome", "since": "5 Mar 2023", "zip": 1}, "age": 31}
    result = grade(answer, reference, fields=fields)
    assert result.parts == {
        "address": pytest.approx(1 / 3), "address.city": 1.0, "address.since": 0.0, "age": 1.0
    }  # fmt: skip
    assert result.value == pytest.approx((3 / 3 + 1) / 4)
    assert grade({"address": "Rome", "age": 30}, reference, fields=fields).parts["address.city"] == 0
    assert grade({"age": 30}, reference, fields=fields).value == 1 / 4


class TestInferredRules:
    REFERENCE = {  # noqa: RUF012
        "text": "Rome", "number": 5, "flag": True, "none": None, "list": ["a", "b"],
        "object": {"x": {"y": "z"}},
        "rows": [{"id": 1, "tag": "A"}, {"id": 2, "tag": "B"}],
    }  # fmt: skip

    def test_by_type_of_the_reference(self):
        answer = {
            "text": "ROME!", "number": "5.0", "flag": True, "none": None, "list": ["B", "a"],
            "object": {"x": {"y": "Z"}}, "rows": [{"tag": "b", "id": 2}, {"id": 1, "tag": "a"}],
        }  # fmt: skip
        assert inferred(answer, self.REFERENCE).value == 1

    def test_nested_parts_have_dotted_names(self):
        parts = inferred({}, self.REFERENCE).parts
        assert {"object.x.y", "object.x", "object", "list.precision", "rows.recall"} <= set(parts)
        assert set(parts.values()) == {0.0}

    def test_an_empty_reference_wants_an_empty_object(self):
        assert inferred({}, {}).value == 1
        assert inferred({"x": 1}, {}).value == 0
        assert inferred({"x": 1}, {}, extra_keys="ignore").value == 1

    def test_a_missing_object_scores_0_even_if_the_reference_object_is_empty(self):
        assert inferred({}, {"slots": {}}).value == 0
        assert inferred({"slots": {}}, {"slots": {}}).value == 1


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), inner, max_size=3)
    ),
    max_leaves=10,
)
objects = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), json_values, max_size=4)


@examples(200)
@given(objects, objects, st.sampled_from(["penalize", "ignore"]))
def test_any_answer_is_between_0_and_1_and_the_reference_itself_scores_1(answer, reference, extra_keys):
    result = inferred(answer, reference, extra_keys=extra_keys)
    assert 0 <= result.value <= 1
    assert all(0 <= part <= 1 for part in result.parts.values())
    copy = inferred(reference, reference, extra_keys=extra_keys)
    assert copy.value == pytest.approx(1)
    assert set(copy.parts) == set(result.parts)


@examples(100)
@given(objects, objects)
def test_an_extra_key_never_pays(answer, reference):
    more = answer | {"extra": "x"}
    assert inferred(more, reference).value <= inferred(answer, reference).value


@examples(200)
@given(st.text(alphabet='{}[]":,abc12 \\un\ud800\0') | st.text())
def test_any_output_gets_a_value_or_a_sample_parse_error(output):
    result = grade(output)
    assert result.value is not None or result.failure.kind is FailureKind.SAMPLE_PARSE


def test_a_rows_own_reference_scores_1_on_all_snips_rows():
    rows = shared_rows("data/snips-slots-200")
    grader = build_grader(
        parse_grader(
            {
                "type": "fields",
                "name": "slots",
                "input": "{{sample.output_json}}",
                "reference": "{{item.reference_json}}",
            }
        )
    )
    assert len(rows) == 200
    for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
        assert grader.grade(Sample(row["reference_json"]), row).value == 1
        if row["reference_json"] != other["reference_json"]:
            assert grader.grade(Sample(other["reference_json"]), row).value < 1
