import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graders.strict_json import NotANumber, StrictJsonError, loads, path_of_no_number
from tests.properties import examples


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("NaN", "NaN is not JSON", id="nan"),
        pytest.param("[-Infinity]", "-Infinity is not JSON", id="infinity"),
        pytest.param("1e999", "out of range", id="float-overflow"),
        pytest.param("-1e999", "out of range", id="negative-float-overflow"),
        pytest.param("9223372036854775808", "beyond 64 bits", id="int-too-large"),
        pytest.param("-9223372036854775809", "beyond 64 bits", id="int-too-small"),
        pytest.param("9" * 10_000, "beyond 64 bits", id="int-of-ten-thousand-digits"),
        pytest.param('{"a": 1, "a": 2}', "duplicate key 'a'", id="duplicate-key"),
        pytest.param(r'{"a": 1, "\u0061": 2}', "duplicate key 'a'", id="duplicate-key-by-escape"),
        pytest.param("[" * 65 + "]" * 65, "64 levels", id="depth-65"),
        pytest.param("[" * 100_000, "64 levels", id="depth-100000-unclosed"),
        pytest.param('{"a":' * 1000 + "1" + "}" * 1000, "64 levels", id="deep-objects"),
        pytest.param('["\\"' + "[" * 70 + '"' + ",[" * 70, "64 levels", id="deep-after-brackets-in-a-string"),
        pytest.param(b'"\xff"', "invalid UTF-8 at byte 1", id="invalid-utf-8"),
        pytest.param(b'"\xed\xa0\x80"', "invalid UTF-8", id="surrogate-in-utf-8"),
        pytest.param('{"a": 1}'.encode("utf-16"), "invalid UTF-8", id="utf-16"),
        pytest.param('"\ud800"', "lone surrogate", id="raw-surrogate-in-str"),
        pytest.param(r'"\ud800"', "half of a surrogate pair", id="high-surrogate"),
        pytest.param(r'"\uDC00x"', "half of a surrogate pair", id="low-surrogate"),
        pytest.param(r'{"\ud83d": 1}', "half of a surrogate pair", id="surrogate-in-a-key"),
        pytest.param(r'"a\u0000b"', "NUL", id="escaped-nul"),
        pytest.param(r'{"\\\u0000": 1}', "NUL", id="escaped-nul-after-a-backslash"),
        pytest.param('"a\0b"', "Invalid control character", id="raw-nul"),
        pytest.param("\ufeff{}", "Expecting value", id="byte-order-mark"),
        pytest.param("", "Expecting value", id="empty"),
        pytest.param("{} {}", "Extra data", id="two-documents"),
        pytest.param("{'a': 1}", "Expecting property name", id="single-quotes"),
        pytest.param("[1,]", "Illegal trailing comma", id="trailing-comma"),
    ],
)
def test_refused(text, message):
    if message == "Illegal trailing comma":  # worded so only by later Python versions
        message = ""
    with pytest.raises(StrictJsonError) as caught:
        loads(text)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 64 + "]" * 64, id="depth-64"),
        pytest.param("[" + "{}," * 500 + "{}]", id="many-brackets-not-deep"),
        pytest.param('["' + "[" * 500 + r"\"{{{" + '"]', id="brackets-in-a-string"),
        pytest.param("9223372036854775807", id="largest-int"),
        pytest.param("-9223372036854775808", id="smallest-int"),
        pytest.param(r'"\ud83c\udf52"', id="surrogate-pair"),
        pytest.param(r'"\\u0000 \\ud800"', id="backslash-then-text"),
        pytest.param("1e-999", id="underflow-is-zero"),
        pytest.param('\n\t {"a": [1.5, null, true]} \r\n', id="white-space"),
    ],
)
def test_accepted_like_the_standard_decoder(text):
    assert loads(text) == json.loads(text)
    assert loads(text.encode()) == json.loads(text)


def test_error_says_where():
    with pytest.raises(StrictJsonError) as caught:
        loads('{"a": 1,\n "b": }')
    assert (caught.value.line, caught.value.column) == (2, 7)
    assert "line 2" in str(caught.value)


def test_depth_limit_is_the_callers():
    assert loads("[[1]]", max_depth=2) == [[1]]
    with pytest.raises(StrictJsonError):
        loads("[[1]]", max_depth=1)


def test_a_large_depth_limit_still_gives_no_recursion_error():
    with pytest.raises(StrictJsonError):
        loads("[" * 200_000 + "]" * 200_000, max_depth=10**9)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@examples(200)
@given(json_values, st.booleans())
def test_whatever_can_be_written_is_read_back(value, ascii_only):
    assert loads(json.dumps(value, ensure_ascii=ascii_only)) == value


@examples(300)
@given(st.text(alphabet='[]{}",:\\u0dD8cf1e9-. \n\0\ud800truenlNaI') | st.binary(max_size=40))
def test_any_text_is_read_or_refused_and_what_is_read_can_be_stored(text):
    try:
        value = loads(text)
    except StrictJsonError:
        return
    stored = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    assert b"\\u0000" not in stored.replace(b"\\\\", b"")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"a": {"b": [1, -Infinity]}}', "a.b[1]"),
        ('[{"a": 1e400}]', "[0].a"),
        ('{"a": 1, "b": NaN, "c": NaN}', "b"),
        ("NaN", None),
        ('{"a": NaN, "b": }', None),
        ('{"\\ud800": NaN}', None),
        ('{"' + "x" * 501 + '": NaN}', None),
    ],
)
def test_what_is_no_number_is_found_in_its_document(text: str, path: str | None) -> None:
    with pytest.raises(NotANumber):
        loads(text)
    assert path_of_no_number(text) == path
