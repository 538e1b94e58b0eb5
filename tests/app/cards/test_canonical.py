"""One form for equal values: RFC 8785's own examples, and what a database does to numbers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cards.canonical import canonical, digest, digest_of_rows


@pytest.mark.parametrize(
    ("value", "written"),
    [
        pytest.param(0.0, "0", id="zero"),
        pytest.param(-0.0, "0", id="minus zero"),
        pytest.param(5e-324, "5e-324", id="smallest"),
        pytest.param(-1.7976931348623157e308, "-1.7976931348623157e+308", id="largest"),
        pytest.param(9007199254740992.0, "9007199254740992", id="two to the 53"),
        pytest.param(295147905179352830000.0, "295147905179352830000", id="about two to the 68"),
        pytest.param(1e21, "1e+21", id="first with an exponent"),
        pytest.param(999999999999999900000.0, "999999999999999900000", id="last without"),
        pytest.param(1e-6, "0.000001", id="small without an exponent"),
        pytest.param(9.999999999999997e-7, "9.999999999999997e-7", id="small with one"),
        pytest.param(333333333.33333325, "333333333.33333325", id="many digits"),
        pytest.param(1e-5, "0.00001", id="where repr has an exponent"),
        pytest.param(1e16, "10000000000000000", id="where repr has one too"),
        pytest.param(4.50, "4.5", id="short"),
    ],
)
def test_numbers_are_written_as_the_rfc_has_them(value: float, written: str) -> None:
    assert canonical(value) == written.encode()


def test_the_rfcs_example_of_an_object() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert canonical(value).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_keys_are_in_the_order_of_utf_16() -> None:
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    ordered = list(json.loads(canonical(dict.fromkeys(names, 0))))
    assert ordered == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_read_back_is_the_same(value: float) -> None:
    assert float(canonical(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, "\ud800"], ids=repr)
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"JSON has no|surrogates"):
        canonical(value)


def test_rows_are_the_same_however_their_lines_were_written() -> None:
    first, second = json.loads('{"b": 1, "a": [1.0]}'), json.loads('{"a":[1],"b":1.0}')
    assert digest(first) == digest(second)
    assert digest_of_rows([first, second]) == digest_of_rows([second, first])
    assert digest_of_rows([first]) != digest_of_rows([first, first])
    assert digest_of_rows([{"a": 1}, {"b": 1}]) != digest_of_rows([{"b": 1}, {"a": 1}])
