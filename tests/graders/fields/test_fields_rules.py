"""The finer rules of `fields`: numbers with units and money, dates and zones, folding, lists of objects."""

import json
import time
from fractions import Fraction

import pytest

from graders import FailureKind, GraderInvalid, Sample, build_grader, parse_grader
from graders.fields.spec import DateRule
from graders.fields.units import UNITS, converted, find_unit
from tests.shared_data import shared_rows

BASE = {"type": "fields", "name": "f", "input": "{{sample.output_json}}", "reference": "{{item.reference}}"}


def grade(answer, reference, rule=None, **changes):
    fields = {"x": rule} if rule else None
    spec = BASE | changes | ({"fields": fields} if fields else {})
    wrapped = ({"x": answer}, {"x": reference}) if rule else (answer, reference)
    sample = Sample(json.dumps(wrapped[0]))
    return build_grader(parse_grader(spec)).grade(sample, {"reference": wrapped[1]})


def score(answer, reference, **rule):
    result = grade(answer, reference, rule)
    assert result.failure is None, result.failure
    return result.value


@pytest.mark.parametrize(
    ("rule", "reference", "right", "wrong"),
    [
        (
            {"unit": "km"},
            "5 km",
            ["5000 m", 5, "5", "5km", "5,000 m", "3.10685596 mi"],
            ["5 m", "5 kg", "km", "6 km"],
        ),
        ({"unit": "g"}, 500, ["0.5 kg", "500 grams", "500,000 mg"], ["500 kg", "500 ml", "500 x"]),
        ({"unit": "°C"}, "20 °C", ["68 °F", "293.15 K", "20 C", 20], ["20 °F", "20 K"]),
        ({"unit": "%"}, "12%", [12, "12 %", "12 percent", "120 ‰"], [0.12, "0.12", "12 km"]),
        ({"unit": "h"}, "1.5 h", ["90 min", "90 minutes", "5400 s"], ["90", "1.5 d"]),
        ({"unit": "MB"}, "1 GB", ["1000 MB", "1e9 B"], ["1 GiB", "1 mb"]),
        (
            {"currency": "any"},
            "RM43.40",
            ["43.40", "$43.4", "43.40 EUR", 43.4],
            ["43.41", "RM 434", "RMX43.40"],
        ),
        (
            {"currency": "EUR"},
            "1,234.50 €",
            ["EUR 1234.5", "€1,234.50", "1234.50"],
            ["$1,234.50", "1234.50 USD"],
        ),
        ({"currency": "USD"}, -5, ["-$5", "$-5", "($5.00)", "-5 USD", "(5.00)"], ["$5", "5"]),
        ({"decimal": ","}, "1.234,50", ["1234,5", "1 234,50", 1234.5], ["1,234.50", "1.234"]),
        ({}, "1,234.5", ["1 234.5", "1'234.50", "1234.5"], ["1.234,5", "RM1,234.5", "1,234.5 km"]),
        ({"unit": "kg", "rel_tolerance": 0.05}, "2 kg", ["2.1 kg", "4.4 lb"], ["2.2 kg"]),
        ({"unit": "km", "decimal": ","}, "1,5 km", ["1500 m", "1,5"], ["15 km"]),
    ],
)
def test_numbers(rule, reference, right, wrong):
    rule = {"compare": "number", "rel_tolerance": 1e-6} | rule
    for answer in right:
        assert score(answer, reference, **rule) == 1, answer
    for answer in wrong:
        assert score(answer, reference, **rule) == 0, answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5" * 79 + "k",
        "$" * 80,
        "(" * 80,
        "- " * 40,
        "5 " * 40,
        "5 km km",
        "٣ km",
        "1e999 km",
        "NaN km",
        "5\u200bkm x",
        "−",
    ],
)
def test_hostile_numbers_are_none(text):
    for rule in ({"unit": "km"}, {"currency": "any"}, {"decimal": ","}):
        assert score(text, 5, compare="number", **rule) == 0


def test_units_convert_there_and_back():
    assert len(UNITS) > 150
    for name, unit in UNITS.items():
        first = next(other for other in UNITS.values() if other.quantity == unit.quantity)
        there = converted(Fraction("3.5"), unit, first)
        assert converted(there, first, unit) == Fraction("3.5"), name
        assert find_unit(name) == unit
    assert converted(Fraction(1), find_unit("mile"), find_unit("m")) == Fraction("1609.344")
    assert converted(Fraction(100), find_unit("°C"), find_unit("°F")) == 212
    assert converted(Fraction(1), find_unit("kg"), find_unit("m")) is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("L", "l"), ("mL", "ml"), ("cL", "cl"), ("dL", "dl"), ("\u03bcL", "\u00b5l"), ("uL", "\u00b5l"),
        ("\u03bcg", "\u00b5g"), ("\u03bcm", "\u00b5m"), ("\u03bcs", "us"), ("KILOMETERS", "km"), ("Kg", "kg"),
        ("m^2", "m2"), ("cm^3", "ml"), ("sq ft", "ft2"), ("cubic metres", "m3"), ("\u2103", "C"),
        ("KM", "km"), ("degrees Celsius", "C"), ("\u00baC", "C"), ("fl oz", "floz"), ("metric tons", "t"),
    ],
)  # fmt: skip
def test_a_unit_goes_by_its_usual_spellings(name, meant):
    assert find_unit(name) == find_unit(meant) is not None


@pytest.mark.parametrize("name", ["Mm", "mb", "G", "kN", "Ms", "x", "Ml", "GHZ ?", ""])
def test_a_spelling_that_means_something_else_is_not_guessed(name):
    others = {"Mm": "mm", "mb": "MB", "G": "g", "kN": "kn", "Ms": "ms", "Ml": "ml"}
    unit = find_unit(name)
    assert unit is None or unit != find_unit(others[name])


@pytest.mark.parametrize(
    ("unit", "reference", "right", "wrong"),
    [
        ("mg", 1, ["1000 µg", "1000 μg", "0.001 g"], ["1001 µg", "999.9999 µg"]),
        ("kg", 0.7, ["700 g", "0.7", "700000 mg"], ["701 g", "700.0001 g"]),
        ("in", 1, ["2.54 cm", "25.4 mm", "0.0254 m"], ["2.5 cm"]),
        ("ft", 1, ["12 in", "30.48 cm", "0.3048 m"], ["30.5 cm"]),
        ("lb", 1, ["453.59237 g", "16 oz", "0.45359237 kg"], ["453.6 g"]),
        ("kg", 0.45359237, ["1 lb"], ["1.01 lb"]),
        ("gal", 1, ["3.785411784 L", "4 qt", "8 pt", "16 cups", "231 in^3"], ["3.79 L"]),
        ("mi", 26.2, ["42.1648128 km", "42164.8128 m"], ["42.195 km"]),
        ("°F", 98.6, ["37 °C", "310.15 K", "37℃"], ["37 °F", "36.9 °C"]),
        ("°C", 0, ["32 °F", "273.15 K"], ["0 °F", "0 K"]),
        ("°C", -40, ["-40 °F", "−40 °F"], ["40 °F"]),
        ("K", 310.15, ["37 °C", "98.6 °F"], ["37 K"]),
        ("m/s", 10, ["36 km/h"], ["36.1 km/h"]),
        ("km/h", 1.852, ["1 kn", "1 knot"], ["1.85 kn"]),
        ("Pa", 101325, ["1 atm", "1.01325 bar", "101.325 kPa", "760 torr"], ["1 bar"]),
        ("h", 0.1, ["6 min", "360 s"], ["6.1 min"]),
        ("kWh", 1, ["3.6 MJ", "3600 kJ"], ["3.5 MJ"]),
        ("%", 0.1, ["1 ‰", "0.001 1", "1000 ppm", "10 bps"], ["0.001 %"]),
        ("l", 0.3, ["300 mL", "30 cL", "3 dL", "0.3 L", "300 cm³"], ["301 mL", "3 L"]),
        ("m", 9007199254740993, ["9007199254740993 m", "9007199254740.993 km"], ["9007199254740992 m"]),
    ],
)
def test_a_conversion_is_exact(unit, reference, right, wrong):
    for answer in right:
        assert score(answer, reference, compare="number", unit=unit) == 1, answer
    for answer in wrong:
        assert score(answer, reference, compare="number", unit=unit) == 0, answer


@pytest.mark.parametrize(
    ("tolerance", "reference", "right", "wrong"),
    [
        ({"abs_tolerance": 0.1}, 0.7, [0.8, 0.6, "0.8"], [0.8001, 0.5999]),
        ({"abs_tolerance": 0.1}, 0.3, [0.2, 0.4], [0.41]),
        ({"rel_tolerance": 0.1}, 0.7, [0.77, 0.63], [0.771]),
        ({"rel_tolerance": 0.05, "unit": "kg"}, 2, ["2.1 kg", "2100 g", "1900 g"], ["2101 g"]),
        ({"abs_tolerance": 0.5, "unit": "°C"}, 37, ["99.5 °F", "97.7 °F"], ["99.6 °F"]),
    ],
)
def test_the_ends_of_a_tolerance_belong_to_it(tolerance, reference, right, wrong):
    for answer in right:
        assert score(answer, reference, compare="number", **tolerance) == 1, answer
    for answer in wrong:
        assert score(answer, reference, compare="number", **tolerance) == 0, answer


@pytest.mark.parametrize("minus", "−–﹣－")
def test_a_typographic_minus_is_the_sign_of_the_number(minus):
    for rule in ({}, {"unit": "m"}, {"currency": "EUR"}, {"decimal": ","}):
        assert score(f"{minus}5", -5, compare="number", **rule) == 1
        assert score(f"{minus}5", 5, compare="number", **rule) == 0


@pytest.mark.parametrize(
    ("rule", "reference", "right", "wrong"),
    [
        (
            {},
            "2024-03-05",
            ["5 mars 2024", "5 März 2024", "5 de marzo de 2024", "5 maart 2024"],
            ["5 mai 2024"],
        ),
        (
            {},
            "2024-03-05",
            ["March 5, 2024 at 3:30 pm", "2024-03-05T23:00:00-05:00"],
            ["2024-03-06", "March 2024"],
        ),
        ({"formats": ["%d.%m.%y", "%y%m%d"]}, "05.03.24", ["240305", "2024-03-05"], ["05.03.25", "03.05.24"]),
        (
            {"precision": "month"},
            "2024-03-05",
            ["March 2024", "2024-03", "31 March 2024"],
            ["2024-04", "2024", "2024-13"],
        ),
        ({"precision": "year"}, "2024", ["2024", "March 2024", "2024-12-31"], ["2025", "24", "x"]),
        (
            {"precision": "minute"},
            "2024-03-05T12:00:00Z",
            [
                "2024-03-05 13:00+01:00",
                "2024-03-05 12:00",
                "5 March 2024, 12:00:59",
                "March 5, 2024 12:00 PM",
            ],
            ["2024-03-05 13:00", "2024-03-05", "2024-03-05 12:01Z"],
        ),
        (
            {"precision": "minute", "timezone": "Europe/Rome"},
            "2024-07-01 12:00",
            ["2024-07-01T10:00:00Z", "1 July 2024 12:00"],
            ["2024-07-01T12:00:00Z"],
        ),
        (
            {"precision": "second"},
            "2024-03-05T12:00:01Z",
            ["2024-03-05T12:00:01.5+00:00"],
            ["2024-03-05T12:00:02Z"],
        ),
    ],
)
def test_dates(rule, reference, right, wrong):
    for answer in right:
        assert score(answer, reference, compare="date", **rule) == 1, answer
    for answer in wrong:
        assert score(answer, reference, compare="date", **rule) == 0, answer


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "5 \u2028Marsh 2024", "²⁰²⁴"]
)
def test_hostile_dates_do_not_raise(text):
    assert score(text, "2024-03-05", compare="date", precision="second", timezone="Asia/Tokyo") == 0


@pytest.mark.parametrize(
    ("rule", "reference", "right", "wrong"),
    [
        (
            {"normalize": ["accents", "case"]},
            "Crème Brûlée",
            ["creme brulee", "CRÈME BRÛLÉE"],
            ["creme  brulee", "creme"],
        ),
        ({"normalize": []}, "A b", ["A b"], ["a b", "A  b", "A b."]),
        (
            {"normalize": ["articles", "case", "whitespace"]},
            "The Beatles",
            ["beatles", "the  beatles"],
            ["them beatles"],
        ),
        ({"normalize": ["punctuation", "whitespace"]}, "a-b (c)", ["a b c", "a-b. c"], ["A b c"]),
        (
            {"remove": r"(?i)\s*(Ltd|Inc)\.?$"},
            "Acme Ltd.",
            ["acme", "Acme Inc", "ACME  ltd."],
            ["Acme Ltd Co"],
        ),
        ({"remove": r"(?i)\bno\b", "normalize": ["case", "whitespace"]}, "No 5", ["5", "no 5"], ["no5"]),
    ],
)
def test_what_a_text_comparison_ignores(rule, reference, right, wrong):
    for answer in right:
        assert score(answer, reference, compare="normalized", **rule) == 1, answer
    for answer in wrong:
        assert score(answer, reference, compare="normalized", **rule) == 0, answer


def test_a_slow_pattern_costs_the_answer_its_field_and_the_reference_its_row():
    rule = {"compare": "normalized", "remove": "(a|aa)+$"}
    started = time.thread_time()
    assert score("a" * 5000 + "b", "x", **rule) == 0
    assert grade("x", "a" * 5000 + "b", rule).failure.kind is FailureKind.INVALID_VARIABLE
    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    ("scorer", "answer", "reference", "expected"),
    [
        ("ratio", "ab", "abcd", 2 / 3),
        ("token_sort", "fox red", "red fox", 1),
        ("token_set", "red fox red", "fox red", 1),
        ("partial", "fox", "the red fox", 1),
        ("jaro_winkler", "martha", "marhta", 0.9611),
        ("partial", "", "fox", 0),
        ("token_set", "", "", 1),
    ],
)
def test_fuzzy_scorers(scorer, answer, reference, expected):
    assert score(answer, reference, compare="fuzzy", scorer=scorer) == pytest.approx(expected, abs=1e-4)


def test_fuzzy_texts_may_be_folded_by_name():
    assert score("creme", "Crème", compare="fuzzy") < 1
    assert score("creme", "Crème", compare="fuzzy", normalize=["accents", "case"]) == 1


def test_booleans():
    for answer in (True, "yes", "TRUE", " y ", 1, "on"):
        assert score(answer, True, compare="boolean") == 1
    for answer in (False, "no", "nope", "", None, 2, "yes no", [True]):
        assert score(answer, "yes", compare="boolean") == 0
    assert grade("yes", "maybe", {"compare": "boolean"}).failure.kind is FailureKind.INVALID_VARIABLE


LINES = [
    {"name": "Tea", "price": 2.5, "tags": ["hot"]},
    {"name": "Cake", "price": 4, "tags": ["sweet", "cold"]},
    {"name": "Soup", "price": 6, "tags": []},
]
LINES_RULE = {
    "compare": "multiset",
    "items": {
        "compare": "object",
        "fields": {
            "name": {"compare": "normalized", "weight": 2},
            "price": {"compare": "number", "currency": "any"},
            "tags": {"compare": "set"},
        },
    },
}


class TestListsOfObjects:
    def test_order_is_free_and_items_are_paired_so_that_they_agree_best(self):
        answer = [
            {"name": "cake", "price": "$4.00", "tags": ["cold", "sweet"]},
            {"name": "Soup", "price": 7, "tags": []},
            {"name": "tea", "price": 2.5, "tags": ["hot"]},
        ]
        result = grade(answer, LINES, LINES_RULE)
        assert result.parts["x"] == result.value == pytest.approx((1 + 1 + 3 / 4) / 3)
        assert result.parts["x.name"] == 1
        assert result.parts["x.price"] == pytest.approx(2 / 3)
        assert result.parts["x.tags"] == 1

    def test_a_pairing_that_looks_good_item_by_item_is_not_taken_where_another_is_better(self):
        reference = [{"a": 1, "b": 1}, {"a": 1, "b": 2}]
        answer = [{"a": 1, "b": 9}, {"a": 9, "b": 1}]
        rule = {"compare": "multiset", "items": {"compare": "object"}}
        assert grade(answer, reference, rule).value == pytest.approx((1 / 2 + 1 / 2) / 2)

    def test_missing_and_extra_items_cost(self):
        assert grade(LINES[:2], LINES, LINES_RULE).value == pytest.approx(2 * 2 / 5)
        extra = [*LINES, {"name": "x"}]
        assert grade(extra, LINES, LINES_RULE).value == pytest.approx(2 * 3 / 7)
        assert grade(extra, LINES, LINES_RULE | {"extra_items": 0}).value == 1
        assert grade(extra, LINES, LINES_RULE | {"extra_items": 3}).value == pytest.approx(2 * 3 / (3 + 6))
        assert grade(extra, LINES, LINES_RULE | {"score": "recall"}).value == 1
        assert grade(extra, LINES, LINES_RULE | {"score": "precision"}).value == 3 / 4

    def test_extra_keys_in_an_item_cost(self):
        answer = [{**LINES[0], "z": 1}, *LINES[1:]]
        assert grade(answer, LINES, LINES_RULE).value == pytest.approx((4 / 5 + 2) / 3)
        assert grade(answer, LINES, LINES_RULE, extra_keys="ignore").value == 1

    def test_in_a_list_the_order_counts(self):
        rule = LINES_RULE | {"compare": "list"}
        assert grade(LINES, LINES, rule).value == 1
        assert grade(LINES[::-1], LINES, rule).value < 0.7

    def test_in_a_set_repeats_are_wrong_items(self):
        rule = LINES_RULE | {"compare": "set"}
        assert grade([*LINES, LINES[0]], LINES, rule).value == pytest.approx(2 * 3 / 7)
        assert grade([*LINES, LINES[0]], [*LINES, LINES[0]], rule).value == 1

    def test_rules_of_items_are_inferred(self):
        result = grade({"x": LINES[::-1]}, {"x": LINES})
        assert result.value == 1
        assert result.parts["x.name"] == result.parts["x.price"] == result.parts["x.tags"] == 1
        partly = grade({"x": [LINES[0] | {"price": 3}]}, {"x": LINES[:1]})
        assert partly.value == pytest.approx(2 / 3)
        assert partly.parts["x.price"] == 0

    def test_an_answer_that_is_no_list_scores_0_with_the_same_parts(self):
        for answer in (None, "Tea", {}, 5, [], [None], ["Tea"], [[]], [[LINES]]):
            result = grade(answer, LINES, LINES_RULE)
            assert result.value == 0
            assert result.parts.keys() == grade(LINES, LINES, LINES_RULE).parts.keys()

    def test_a_reference_that_is_no_list_of_objects_is_the_datas_fault(self):
        for reference in (["Tea"], {}, [LINES[0], 5], [{"name": "Tea", "price": "dear"}]):
            result = grade([], reference, LINES_RULE)
            assert result.failure.kind is FailureKind.INVALID_VARIABLE

    def test_huge_lists_are_compared_soon(self):
        started = time.thread_time()
        many = [{"name": f"n{i}", "price": i, "tags": [str(i)]} for i in range(3000)]
        assert grade(many, LINES, LINES_RULE).value < 0.01
        other = [one | {"price": -1} for one in many]
        assert 0 < grade(other[:40], many[:40], LINES_RULE).value < 1
        assert time.thread_time() - started < 5


def test_lists_of_lists():
    rule = {"compare": "list", "items": {"compare": "list", "items": "number"}}
    assert grade([[1, 2], [3, 4]], [[1, 2], [3, 4]], rule).value == 1
    assert grade([[1, 2], [3, 5]], [[1, 2], [3, 4]], rule).value == pytest.approx((1 + 1 / 2) / 2)
    assert grade([[3, 4], [1, 2]], [[1, 2], [3, 4]], rule).value == 1 / 2


@pytest.mark.parametrize(
    ("rule", "param"),
    [
        ({"compare": "number", "unit": "parsec-ish"}, "fields.x.unit"),
        ({"compare": "number", "unit": "kg", "currency": "EUR"}, "fields.x.currency"),
        ({"compare": "number", "currency": "euro"}, "fields.x.currency"),
        ({"compare": "date", "timezone": "Mars/Base"}, "fields.x.timezone"),
        ({"compare": "date", "timezone": "../../etc/passwd"}, "fields.x.timezone"),
        ({"compare": "date", "precision": "hour"}, "fields.x.precision"),
        ({"compare": "exact", "normalize": ["case"]}, "fields.x.normalize"),
        ({"compare": "normalized", "remove": "(["}, "fields.x.remove"),
        ({"compare": "normalized", "remove": "a" * 201}, "fields.x.remove"),
        ({"compare": "normalized", "normalize": ["spelling"]}, "fields.x.normalize[0]"),
        ({"compare": "fuzzy", "scorer": "best"}, "fields.x.scorer"),
        ({"compare": "set", "extra_items": -1}, "fields.x.extra_items"),
        ({"compare": "set", "items": {"compare": "object", "weight": 2}}, "fields.x.items.weight"),
        (
            {"compare": "set", "items": {"compare": "object", "fields": {"a": {"compare": "x"}}}},
            "fields.x.items.fields.a.compare",
        ),
    ],
)
def test_bad_rules_are_refused_by_path(rule, param):
    with pytest.raises(GraderInvalid) as caught:
        parse_grader(BASE | {"fields": {"x": rule}})
    assert caught.value.param == param


def test_zones_are_known_by_name():
    assert DateRule(compare="date", timezone="Asia/Kolkata").timezone == "Asia/Kolkata"


SNIPS = {"intent": {"compare": "exact"}, "slots": {"compare": "object"}}
SROIE = {
    "company": {"compare": "fuzzy", "threshold": 0.5},
    "date": {"compare": "date", "day_first": True},
    "address": {"compare": "fuzzy", "threshold": 0.5},
    "total": {"compare": "number", "currency": "any"},
}


@pytest.mark.parametrize(("data", "fields"), [("snips-slots-200", SNIPS), ("sroie-receipts-200", None)])
def test_a_rows_own_reference_scores_1_an_empty_object_0_and_prose_is_named(data, fields):
    spec = BASE | {"reference": "{{item.reference_json}}"} | ({"fields": fields} if fields else {})
    grader = build_grader(parse_grader(spec))
    for row in shared_rows(f"data/{data}"):
        assert grader.grade(Sample(row["reference_json"]), row).value == 1
        assert grader.grade(Sample("{}"), row).value == 0
        assert grader.grade(Sample("The total is 5."), row).failure.kind is FailureKind.SAMPLE_PARSE


def test_receipts_by_date_and_amount():
    grader = build_grader(parse_grader(BASE | {"reference": "{{item.reference_json}}", "fields": SROIE}))
    read = 0
    for row in shared_rows("data/sroie-receipts-200"):
        own = grader.grade(Sample(row["reference_json"]), row)
        if own.failure is None:
            read += 1
            assert own.value == 1
            spaced = json.loads(row["reference_json"]) | {"total": row["total"].strip("RM$ ") + " MYR"}
            assert grader.grade(Sample(json.dumps(spaced)), row).value == 1
    assert read >= 190
