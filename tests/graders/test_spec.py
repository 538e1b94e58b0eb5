# ruff: noqa: E501 - one wrong grader a line
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from graders import GraderInvalid, Sample, build_grader, dump_grader, has_path, item_paths, parse_grader
from graders.spec import GraderSpec
from tests.properties import examples

CHECK = {
    "type": "string_check",
    "name": "a",
    "input": "{{sample.output_text}}",
    "reference": "x",
    "operation": "eq",
}
SIMILAR = {"type": "text_similarity", "input": "i", "reference": "r", "evaluation_metric": "rouge_l"}
FIELDS = {"type": "fields", "name": "f", "input": "{{sample.output_json}}", "reference": "{{item.ref}}"}
MULTI = {"type": "multi", "name": "m", "graders": {"a": CHECK}, "calculate_output": "a"}


def fields(**rules):
    return FIELDS | {"fields": rules}


def multi(formula="a", **graders):
    return MULTI | {"graders": graders, "calculate_output": formula}


def without(spec, key):
    return {name: value for name, value in spec.items() if name != key}


@pytest.mark.parametrize(
    ("raw", "code", "param", "message"),
    [
        pytest.param("x", "invalid_type", "", "Invalid type for 'grader': expected an object, but got a string instead.", id="not-an-object"),
        pytest.param({}, "missing_required_parameter", "type", "Missing required parameter: 'type'.", id="no-type"),
        pytest.param({"type": 5}, "invalid_type", "type", "expected a string, but got an integer", id="type-is-a-number"),
        pytest.param({"type": "nope"}, "invalid_value", "type", "Invalid value: 'nope'. Supported values are: 'string_check', 'text_similarity', 'python', 'fields', 'score_model',", id="unknown-type"),
        pytest.param(without(CHECK, "input"), "missing_required_parameter", "input", "Missing required parameter: 'input'.", id="missing"),
        pytest.param(CHECK | {"input": None}, "invalid_type", "input", "expected a string, but got null instead.", id="null"),
        pytest.param(CHECK | {"input": ["x"]}, "invalid_type", "input", "but got an array", id="array"),
        pytest.param(CHECK | {"operation": "is"}, "invalid_value", "operation", "Supported values are: 'eq', 'ne', 'like', and 'ilike'.", id="operation"),
        pytest.param(CHECK | {"extra": 1}, "unknown_parameter", "extra", "Unknown parameter: 'extra'.", id="unknown"),
        pytest.param(CHECK | {"pass_threshold": "1"}, "invalid_type", "pass_threshold", "expected a number", id="threshold-text"),
        pytest.param(CHECK | {"pass_threshold": True}, "invalid_type", "pass_threshold", "a boolean", id="threshold-boolean"),
        pytest.param(CHECK | {"pass_threshold": float("nan")}, "invalid_value", "pass_threshold", "a finite number", id="threshold-nan"),
        pytest.param(CHECK | {"name": ""}, "string_below_min_length", "name", "at least 1 character", id="empty-name"),
        pytest.param(CHECK | {"name": "x" * 257}, "string_above_max_length", "name", "at most 256", id="long-name"),
        pytest.param(CHECK | {"input": "x" * 65_537}, "string_above_max_length", "input", "at most 65536", id="long-template"),
        pytest.param(CHECK | {"input": "{{7*7}}"}, "invalid_value", "input", "'{{7*7}}' is not a variable", id="template"),
        pytest.param(SIMILAR | {"evaluation_metric": "bert"}, "invalid_value", "evaluation_metric", "'rouge_l'", id="metric"),
        pytest.param(without(MULTI, "graders"), "missing_required_parameter", "graders", "Missing", id="multi-no-graders"),
        pytest.param(without(MULTI, "calculate_output"), "missing_required_parameter", "calculate_output", "Missing", id="multi-no-formula"),
        pytest.param(MULTI | {"graders": [CHECK]}, "invalid_type", "graders", "expected an object, but got an array", id="multi-array"),
        pytest.param(MULTI | {"graders": {}}, "invalid_value", "graders", "1 to 64", id="multi-empty"),
        pytest.param(multi(**{f"g{i}": CHECK for i in range(65)}), "invalid_value", "graders", "1 to 64", id="multi-65"),
        pytest.param(multi(a=without(CHECK, "input")), "missing_required_parameter", "graders.a.input", "Missing required parameter: 'graders.a.input'.", id="multi-part-missing"),
        pytest.param(multi(a={"type": "nope"}), "invalid_value", "graders.a.type", "'nope'", id="multi-part-type"),
        pytest.param(multi(a="x"), "invalid_type", "graders.a", "expected an object, but got a string", id="multi-part-string"),
        pytest.param(multi(a=MULTI), "invalid_value", "graders.a.type", "cannot contain another multi", id="multi-nested"),
        pytest.param(multi(**{"a b": CHECK}), "invalid_value", "graders", "letters, digits and underscores", id="multi-key"),
        pytest.param(multi("a + b", a=CHECK), "invalid_value", "calculate_output", "Unknown name 'b'", id="formula-name"),
        pytest.param(multi("a +", a=CHECK), "invalid_value", "calculate_output", "ends too early", id="formula-syntax"),
        pytest.param(multi("a" * 1025, a=CHECK), "invalid_value", "calculate_output", "longer than 1024", id="formula-length"),
        pytest.param(MULTI | {"graders": CHECK | {"input": 5}}, "invalid_type", "graders.input", "Invalid type for 'graders.input'", id="bare-part"),
        pytest.param(MULTI | {"graders": without(CHECK, "name")}, "missing_required_parameter", "graders.name", "Missing", id="bare-without-name"),
        pytest.param(fields(), "invalid_value", "fields", "at least 1", id="no-fields"),
        pytest.param(fields(city={}), "missing_required_parameter", "fields.city.compare", "Missing", id="no-compare"),
        pytest.param(fields(city={"compare": "magic"}), "invalid_value", "fields.city.compare", "'normalized'", id="compare"),
        pytest.param(fields(city={"compare": 5}), "invalid_type", "fields.city.compare", "a string", id="compare-number"),
        pytest.param(fields(city="exact"), "invalid_type", "fields.city", "expected an object", id="rule-is-a-string"),
        pytest.param(fields(exact={"compare": "exact", "exact": 1}), "unknown_parameter", "fields.exact.exact", "Unknown", id="field-called-like-a-rule"),
        pytest.param(fields(n={"compare": "number", "weight": -1}), "decimal_below_min_value", "fields.n.weight", "0", id="weight"),
        pytest.param(fields(n={"compare": "number", "items": "exact"}), "unknown_parameter", "fields.n.items", "Unknown", id="items-of-a-number"),
        pytest.param(fields(l={"compare": "set", "items": "set"}), "invalid_value", "fields.l.items", "Supported values", id="set-of-sets"),
        pytest.param(fields(l={"compare": "set", "items": {"compare": "fuzzy", "threshold": 2}}), "decimal_above_max_value", "fields.l.items.threshold", "1", id="threshold"),
        pytest.param(fields(l={"compare": "set", "items": {"compare": "exact", "weight": 2.0}}), "invalid_value", "fields.l.items.weight", "no weight of its own", id="item-weight"),
        pytest.param(fields(a={"compare": "object", "fields": {"b": {"compare": "x"}}}), "invalid_value", "fields.a.fields.b.compare", "Supported", id="nested-rule"),
        pytest.param(fields(a={"compare": "exact", "weight": 0.0}), "invalid_value", "fields", "weight above 0", id="no-weight-at-all"),
        pytest.param(FIELDS | {"extra_keys": "forbid"}, "invalid_value", "extra_keys", "'penalize' and 'ignore'", id="extra-keys"),
        pytest.param(multi(p=fields(city={"compare": "x"})), "invalid_value", "graders.p.fields.city.compare", "Supported", id="fields-in-multi"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_openais_code_and_the_path(raw, code, param, message):
    with pytest.raises(GraderInvalid) as caught:
        parse_grader(raw)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert message in caught.value.message


@pytest.mark.parametrize("raw", [CHECK, FIELDS, MULTI, SIMILAR | {"name": "s", "pass_threshold": 0.5},
    MULTI | {"graders": CHECK}, fields(a={"compare": "set", "items": {"compare": "number", "abs_tolerance": 1}},
    b={"compare": "object", "fields": {"c": {"compare": "date", "day_first": True}}, "weight": 2})])  # fmt: skip
def test_dump_is_what_was_received(raw):
    assert dump_grader(parse_grader(raw)) == raw


@pytest.mark.parametrize("raw", [CHECK, FIELDS, MULTI, MULTI | {"graders": CHECK}])
def test_a_stored_spec_is_read_back_as_a_field_of_another_model(raw):
    class Config(BaseModel):
        grader: GraderSpec

    config = Config(grader=parse_grader(raw))
    assert Config.model_validate_json(config.model_dump_json(exclude_unset=True)) == config
    assert TypeAdapter(GraderSpec).validate_python(dump_grader(config.grader)) == config.grader


def test_missing_names_are_made_up_once():
    spec = parse_grader(MULTI | {"graders": {"a": without(CHECK, "name")}})
    name = dump_grader(spec)["graders"]["a"]["name"]
    assert len(name) == len("grader-") + 12
    assert name.startswith("grader-")
    assert parse_grader(dump_grader(spec)) == spec
    assert parse_grader(without(CHECK, "name")).name == name
    assert parse_grader(without(CHECK, "name") | {"reference": "y"}).name != name
    assert parse_grader(without(MULTI, "name")).name.startswith("grader-")


def test_neq_is_read_as_ne():
    assert dump_grader(parse_grader(CHECK | {"operation": "neq"}))["operation"] == "ne"


def test_a_bare_sub_grader_is_an_object_of_one():
    spec = parse_grader(MULTI | {"graders": CHECK | {"name": "score"}, "calculate_output": "score * 2"})
    grade = build_grader(spec).grade(Sample("x"), {})
    assert (grade.value, grade.parts) == (2.0, {"score": 1.0})


def test_item_paths_name_every_field_a_row_needs():
    check = CHECK | {
        "input": "{{item.a}} {{sample.output_text}} {{ item['a'] }}",
        "reference": "{{item.b[0].c}}",
    }
    assert item_paths(parse_grader(check)) == [("input", "item.a"), ("reference", "item.b[0].c")]
    assert item_paths(parse_grader(multi("x+y", x=check, y=FIELDS))) == [
        ("graders.x.input", "item.a"), ("graders.x.reference", "item.b[0].c"), ("graders.y.reference", "item.ref"),
    ]  # fmt: skip
    assert item_paths(parse_grader(MULTI | {"graders": check | {"name": "a"}}))[0] == (
        "graders.input",
        "item.a",
    )
    assert has_path({"b": [{"c": None}]}, "item.b[0].c")
    assert not has_path({"b": []}, "item.b[0].c")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["set", "{{item.a}}", "{{", "a", "fields"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["type", "name", "input", "reference", "operation", "graders", "calculate_output", "fields",
                         "compare", "items", "weight", "a", "extra_keys"]),
        inner, max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@examples(300)
@given(st.sampled_from([CHECK, SIMILAR, FIELDS, MULTI, {}]), st.dictionaries(
    st.sampled_from(["type", "name", "input", "graders", "fields", "calculate_output", "extra_keys"]), json_values, max_size=3))  # fmt: skip
def test_any_json_is_a_grader_that_builds_or_is_refused(base, changes):
    try:
        spec = parse_grader(base | changes)
    except GraderInvalid:
        return
    build_grader(spec)
    assert parse_grader(dump_grader(spec)) == spec
