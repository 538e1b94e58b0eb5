import pytest

from graders import build_grader, parse_grader
from graders.preflight.trial import preflight
from graders.preflight.unasked import unasked_fields

FIELDS = {
    "city": {"compare": "exact"},
    "sity": {"compare": "exact"},
    "address": {"compare": "object", "fields": {"zip": {"compare": "exact"}, "street": {"compare": "exact"}}},
    "lines": {
        "compare": "list",
        "items": {
            "compare": "object",
            "fields": {"name": {"compare": "exact"}, "prise": {"compare": "number"}},
        },
    },
}
GRADER = {
    "type": "fields",
    "name": "f",
    "input": "{{sample.output_json}}",
    "reference": "{{item.reference}}",
    "fields": FIELDS,
}
ROWS = [
    {"reference": {"city": "Rome", "address": {"zip": "1"}}},
    {"reference": '{"city": "Oslo", "lines": [{"name": "Tea"}]}'},
    {"reference": "no json"},
    {},
]


def test_fields_that_no_row_asks_for_are_named_by_path():
    expected = ["fields.sity", "fields.address.street", "fields.lines.prise"]
    assert unasked_fields(parse_grader(GRADER), ROWS) == expected
    multi = {"type": "multi", "name": "m", "graders": {"a": GRADER}, "calculate_output": "a"}
    assert unasked_fields(parse_grader(multi), ROWS) == [f"graders.a.{path}" for path in expected]


@pytest.mark.parametrize("rows", [[], [{}], [{"reference": "x"}], [{"reference": [1]}]])
def test_nothing_is_said_where_no_reference_can_be_read(rows):
    assert unasked_fields(parse_grader(GRADER), rows) == []


def test_the_preflight_warns_of_them():
    spec = parse_grader(GRADER)
    report = preflight(spec, build_grader(spec), ROWS[:2])
    warned = [finding for finding in report.warnings if finding.code == "field_never_asked"]
    assert [finding.level for finding in warned] == ["warn"] * 3
    assert "fields.sity" in warned[0].message
