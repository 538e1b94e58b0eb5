import calendar
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graders.fields.compare import fold, scalar_score
from graders.fields.dates import read_date
from graders.fields.numbers import read_number
from graders.fields.spec import DateRule, FuzzyRule, NumberRule, TextRule
from graders.types import FailureKind, GradeFailed
from tests.properties import examples

EXACT = TextRule(compare="exact")
NORMALIZED = TextRule(compare="normalized")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param("  New\tYork ", "new york", id="white-space-and-case"),
        pytest.param("New-York", "new york", id="hyphen"),
        pytest.param("St. John's", "st john’s", id="full-stop-and-apostrophe"),
        pytest.param("M.I.T.", "MIT", id="initials"),
        pytest.param("ﬁne Ａ１", "FINE a1", id="compatibility-forms"),
        pytest.param("Straße", "STRASSE", id="case-folding"),
        pytest.param("caf\u00e9", "cafe\u0301", id="composed-and-decomposed"),
        pytest.param("a\u200bb\ufeff", "ab", id="invisible-characters"),
        pytest.param('"Rome"', "Rome", id="quotes"),
        pytest.param("−5 °C", "-5 °c", id="minus-sign"),
        pytest.param("Node.js", "NodeJS", id="full-stop-inside"),
    ],
)
def test_fold_makes_equal(left, right):
    assert fold(left) == fold(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param("C", "C++", id="c-and-c++"),
        pytest.param("C", "C#", id="c-and-c#"),
        pytest.param("-5", "5", id="sign"),
        pytest.param("at -.5", "at .5", id="sign-before-a-point"),
        pytest.param("2.5", "25", id="decimal-point"),
        pytest.param("25", "5", id="25-and-5"),
        pytest.param("Раris", "Paris", id="cyrillic-look-alike"),
        pytest.param("Málaga", "Malaga", id="accent"),
        pytest.param("New York", "NewYork", id="space"),
        pytest.param("!!!", "???", id="only-punctuation"),
        pytest.param("...", "", id="full-stops-and-nothing"),
        pytest.param("हिन्दी", "हन्द", id="combining-vowels"),
    ],
)
def test_fold_keeps_apart(left, right):
    assert fold(left) != fold(right)


@examples(200)
@given(st.text(st.characters(exclude_categories=["Cs", "Mn", "Mc", "Me"])))
def test_folded_text_folds_to_itself(text):
    assert fold(fold(text)) == fold(text)
    assert fold(f"  {text} ") == fold(text)


@pytest.mark.parametrize(
    ("rule", "answer", "reference", "expected"),
    [
        pytest.param(EXACT, "a", "a", 1, id="exact-text"),
        pytest.param(EXACT, "A", "a", 0, id="exact-case"),
        pytest.param(EXACT, 1, 1.0, 1, id="exact-numbers"),
        pytest.param(EXACT, True, 1, 0, id="exact-true-is-not-1"),
        pytest.param(EXACT, "1", 1, 0, id="exact-text-is-no-number"),
        pytest.param(EXACT, {"b": 1, "a": 2}, {"a": 2, "b": 1}, 1, id="exact-objects-unordered"),
        pytest.param(EXACT, [1, 2], [2, 1], 0, id="exact-arrays-ordered"),
        pytest.param(EXACT, None, "null", 0, id="exact-null-is-no-text"),
        pytest.param(NORMALIZED, "1", 1, 1, id="normalized-number-as-text"),
        pytest.param(NORMALIZED, 1.0, 1, 1, id="normalized-1.0"),
        pytest.param(NORMALIZED, "TRUE", True, 1, id="normalized-true"),
        pytest.param(NORMALIZED, None, "null", 0, id="normalized-null-is-no-text"),
        pytest.param(NORMALIZED, ["Rome"], "Rome", 0, id="normalized-list-is-no-text"),
        pytest.param(NORMALIZED, '["Rome"]', ["Rome"], 0, id="normalized-text-is-no-list"),
        pytest.param(NumberRule(compare="number"), "1,234.50", 1234.5, 1, id="number-as-text"),
        pytest.param(NumberRule(compare="number"), "\u20131,234.50", -1234.5, 1, id="number-with-a-dash"),
        pytest.param(NumberRule(compare="number"), 2**62, 2**62 + 1, 0, id="number-large-ints-differ"),
        pytest.param(NumberRule(compare="number"), True, 1, 0, id="number-true"),
        pytest.param(NumberRule(compare="number"), "25 or 5", 5, 0, id="number-two-guesses"),
        pytest.param(NumberRule(compare="number"), "9" * 400, 5, 0, id="number-huge"),
        pytest.param(NumberRule(compare="number", abs_tolerance=0.5), 10.5, 10, 1, id="number-within-abs"),
        pytest.param(NumberRule(compare="number", abs_tolerance=0.5), 10.6, 10, 0, id="number-beyond-abs"),
        pytest.param(NumberRule(compare="number", rel_tolerance=0.1), -109, -100, 1, id="number-within-rel"),
        pytest.param(NumberRule(compare="number", rel_tolerance=0.1), -111, -100, 0, id="number-beyond-rel"),
        pytest.param(DateRule(compare="date"), "5 March 2024", "2024-03-05", 1, id="date"),
        pytest.param(DateRule(compare="date"), "2024-03-06", "2024-03-05", 0, id="date-next-day"),
        pytest.param(DateRule(compare="date"), "05/03/2024", "2024-03-05", 0, id="date-ambiguous-answer"),
        pytest.param(
            DateRule(compare="date", day_first=True), "05/03/24", "2024-03-05", 1, id="date-day-first"
        ),
        pytest.param(DateRule(compare="date"), 20240305, "2024-03-05", 0, id="date-number"),
        pytest.param(FuzzyRule(compare="fuzzy"), "ROME!", "rome", 1, id="fuzzy-folds"),
        pytest.param(FuzzyRule(compare="fuzzy"), "abcd", "abxd", 0.75, id="fuzzy-ratio"),
        pytest.param(FuzzyRule(compare="fuzzy", threshold=0.8), "abcd", "abxd", 0, id="fuzzy-below"),
        pytest.param(FuzzyRule(compare="fuzzy", threshold=0.75), "abcd", "abxd", 0.75, id="fuzzy-at"),
        pytest.param(FuzzyRule(compare="fuzzy"), None, "null", 0, id="fuzzy-null"),
        pytest.param(FuzzyRule(compare="fuzzy"), ["rome"], "rome", 0, id="fuzzy-list"),
    ],
)
def test_scalar_score(rule, answer, reference, expected):
    assert scalar_score(rule, answer, reference, "x") == expected


@pytest.mark.parametrize(
    ("rule", "reference"),
    [
        pytest.param(NumberRule(compare="number"), "twelve", id="number"),
        pytest.param(DateRule(compare="date"), "soon", id="date"),
        pytest.param(DateRule(compare="date"), "05/03/2024", id="ambiguous-date"),
    ],
)
def test_a_reference_the_rule_cannot_read_is_the_datas_fault(rule, reference):
    with pytest.raises(GradeFailed) as caught:
        scalar_score(rule, reference, reference, "when")
    assert caught.value.failure.kind is FailureKind.INVALID_VARIABLE
    assert "'when'" in caught.value.failure.message


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5), (-2.5, -2.5), (" 42 ", 42), ("-1,234,567", -1234567), ("1e3", 1000), (".5", 0.5), ("+7", 7),
        ("−3", -3), (True, None), (None, None), ([1], None), ("", None), ("-", None), (".", None), ("e5",
        None),
        ("1,23", None), ("12,34", None), ("1.2.3", None), ("$5", None), ("5%", None), ("5 apples", None),
        ("1e999", None), ("٣", None), ("½", None), ("NaN", None), ("inf", None), ("1_000", None),
        ("0x10", None),
        ("5" * 81, None),
    ],
)  # fmt: skip
def test_parse_number(value, expected):
    assert read_number(value, NumberRule(compare="number")) == expected


def day_of(text, day_first):
    found = read_date(text, DateRule(compare="date", day_first=day_first))
    return date(*found) if found else None


@pytest.mark.parametrize(
    ("text", "day_first", "expected"),
    [
        ("2024-03-05", None, date(2024, 3, 5)),
        ("20240305", None, date(2024, 3, 5)),
        ("2024-03-05T23:59:00Z", None, date(2024, 3, 5)),
        ("2024/3/5", None, date(2024, 3, 5)),
        ("5 March 2024", None, date(2024, 3, 5)),
        ("5th of March, 2024", None, date(2024, 3, 5)),
        ("Mar 5, 2024", None, date(2024, 3, 5)),
        ("Sept. 1st 2024", None, date(2024, 9, 1)),
        ("Tuesday, 5-Mar-2024", None, date(2024, 3, 5)),
        ("25/03/2024", None, date(2024, 3, 25)),
        ("03/25/2024", None, date(2024, 3, 25)),
        ("05.05.2024", None, date(2024, 5, 5)),
        ("05/03/2024", None, None),
        ("05/03/2024", True, date(2024, 3, 5)),
        ("05/03/2024", False, date(2024, 5, 3)),
        ("25/03/2024", False, None),
        ("19/05/18", None, None),
        ("19/05/18", True, date(2018, 5, 19)),
        ("01/02/69", True, date(1969, 2, 1)),
        ("01/02/123", True, None),
        ("05/03-2024", True, None),
        ("30 February 2024", None, None),
        ("March 2024", None, None),
        ("5 Marchish 2024", None, None),
        ("2024-13-45", None, None),
        ("0000-01-01", None, None),
        ("2024-03-05 or 2024-03-06", None, None),
        ("٢٠٢٤-٠٣-٠٥", None, None),
        ("", None, None),
        (20240305, None, None),
    ],
)
def test_parse_date(text, day_first, expected):
    assert day_of(text, day_first) == expected


@examples(300)
@given(
    st.text(alphabet="0123456789/-. ,:TZWMarchfotdy+", max_size=24) | st.text(max_size=12),
    st.sampled_from([None, True, False]),
)
def test_any_text_is_a_date_or_a_number_or_neither(text, day_first):
    day_of(text, day_first)
    number = read_number(text, NumberRule(compare="number"))
    assert number is None or abs(number) < float("inf")


@examples(100)
@given(st.dates(min_value=date(1000, 1, 1)), st.sampled_from(["%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "{d} %Y"]))
def test_dates_are_read_back(day, form):
    text = day.strftime(form).replace("{d}", f"{day.day} {calendar.month_name[day.month]}")
    assert day_of(text, None) == day
