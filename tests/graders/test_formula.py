import math
import re
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graders.formula import Formula
from graders.types import FailureKind, GradeFailed, GraderInvalid
from tests.properties import examples

NAMES = frozenset({"a", "b", "max"})


def value(text, **values):
    return Formula.parse(text, frozenset(values)).evaluate(values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("1 + 2 * 3", 7, id="times-before-plus"),
        pytest.param("(1 + 2) * 3", 9, id="parentheses"),
        pytest.param("8 - 3 - 2", 3, id="minus-is-left-associative"),
        pytest.param("8 / 4 / 2", 1, id="divide-is-left-associative"),
        pytest.param("2 ^ 3 ^ 2", 512, id="power-is-right-associative"),
        pytest.param("-2 ^ 2", -4, id="power-before-sign"),
        pytest.param("2 ^ -1", 0.5, id="negative-exponent"),
        pytest.param("--3", 3, id="two-signs"),
        pytest.param("2 * -3", -6, id="sign-after-times"),
        pytest.param("min(3, 1, 2) + max(4, 5)", 6, id="min-max"),
        pytest.param("min(7)", 7, id="min-of-one"),
        pytest.param("abs(-2) + floor(2.7) + ceil(2.1)", 7, id="abs-floor-ceil"),
        pytest.param("exp(0) + sqrt(9)", 4, id="exp-sqrt"),
        pytest.param("log(exp(2))", 2, id="log-is-natural"),
        pytest.param(".5 + 1. + 1e1 + 1.5E-1", 11.65, id="number-forms"),
        pytest.param(" 1\n+\t1 ", 2, id="white-space"),
    ],
)
def test_value(text, expected):
    assert value(text) == pytest.approx(expected)


def test_names_are_the_graders():
    assert value("0.3 * intent + 0.7*slots_1", intent=1.0, slots_1=0.5) == pytest.approx(0.65)


def test_a_grader_may_be_called_like_a_function():
    assert value("max(max, 0.5)", max=0.25) == 0.5


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "1 +", "+", "(1", "1)", "()", "1 2", "a b", "2a", "a..b", "a.b", "1..2", "a ** b",
        "a // b", "a % b",
        "nope", "nope(1)", "abs()", "abs(1, 2)", "min()", "min(1,)", "a(1)", "a == b", "a if b else 0",
        "a[0]",
        "__import__('os')", "1e999", "a; b", "a, b", "lambda: 0", "1_000", "0x10", "٣", "a–b", "π",
        "'a'", "a\0",
        "True", "inf", "nan", "e",
        "+".join("1" * 40), "(" * 100 + "1" + ")" * 100, "-" * 70 + "1", "1+" * 600 + "1", "max" * 400,
    ],
)  # fmt: skip
def test_refused_when_built(text):
    with pytest.raises(GraderInvalid):
        Formula.parse(text, NAMES)


def test_sixty_four_nodes_are_allowed():
    assert Formula.parse("+".join("1" * 32), NAMES).evaluate({}) == 32


@pytest.mark.parametrize(
    "text",
    ["9^9^9^9", "1/0", "1/(a-a)", "log(0)", "log(-1)", "sqrt(-1)", "(-8)^(1/3)", "0^-1", "exp(1000)",
    "1e308*10",
     "1e308+1e308", "-1e308-1e308", "1/(1e308*10)", "(1e200*1e200)-(1e200*1e200)", "9^9^9 - 9^9^9",
     "1e308/1e-308"],
)  # fmt: skip
def test_no_finite_value_is_a_quick_formula_parse_error(text):
    formula = Formula.parse(text, NAMES)
    started = time.thread_time()
    with pytest.raises(GradeFailed) as caught:
        formula.evaluate({"a": 1.0, "b": 0.0, "max": 0.0})
    assert time.thread_time() - started < 1  # an exact power would take a minute
    assert caught.value.failure.kind is FailureKind.FORMULA_PARSE


def test_failure_says_with_which_values():
    with pytest.raises(GradeFailed, match=r"with a = 0, b = 0\.5"):
        value("b / a", a=0.0, b=0.5, c=1.0)


numbers = st.sampled_from(["0", "1", "2.5", "7", "0.125", "a", "b"])
formulas = st.recursive(
    numbers,
    lambda part: st.one_of(
        st.tuples(part, st.sampled_from([" + ", "-", "*", "/", "^"]), part).map("".join),
        part.map(lambda inner: f"({inner})"),
        part.map(lambda inner: f"-{inner}"),
        st.tuples(st.sampled_from(["abs", "floor", "ceil", "exp", "sqrt", "log"]), part).map(
            lambda x: f"{x[0]}({x[1]})"
        ),
        st.lists(part, min_size=1, max_size=3).map(lambda parts: f"max({', '.join(parts)})"),
        st.lists(part, min_size=1, max_size=3).map(lambda parts: f"min({', '.join(parts)})"),
    ),
    max_leaves=8,
)


def by_python(text, values):
    """The same formula by Python's own parser, whose precedence and associativity agree with ours."""
    python = re.sub(r"(?<![\w.])(\d+)(?![\w.])", r"\1.0", text).replace("^", "**")
    functions = {name: getattr(math, name) for name in ("floor", "ceil", "exp", "sqrt", "log")}
    functions |= {"abs": abs, "min": lambda *xs: min(xs), "max": lambda *xs: max(xs)}
    functions |= {name: (lambda f: lambda x: float(f(x)))(functions[name]) for name in ("floor", "ceil")}
    return eval(python, {"__builtins__": {}}, functions | values)


def outcome(compute):
    """What a computation gives, or the error it ends with."""
    try:
        return compute()
    except (GraderInvalid, GradeFailed, ArithmeticError, ValueError, TypeError) as error:
        return error


@examples(400)
@given(formulas, st.floats(-4, 4), st.floats(0, 1))
def test_agrees_with_python(text, a, b):
    values = {"a": a, "b": b}
    got = outcome(lambda: Formula.parse(text, frozenset(values)).evaluate(values))
    expected = outcome(lambda: by_python(text, values))
    if isinstance(got, GraderInvalid):
        assert "more than" in got.message  # of these formulas only the long and the deep are refused
    elif not isinstance(expected, float) or not math.isfinite(expected):
        assert isinstance(got, GradeFailed)
    elif isinstance(got, GradeFailed):  # Python lets an infinity pass through and come back finite
        assert "out of range" in got.failure.message
    else:
        assert got == pytest.approx(expected, rel=1e-12, abs=1e-300)


@examples(300)
@given(
    st.lists(st.sampled_from([*"ab01.e+-*/^(), ", "max", "log", "9^9", "1e308"]), max_size=20).map("".join)
)
def test_any_text_is_refused_or_gives_a_finite_value_or_fails_by_name(text):
    with suppress(GraderInvalid, GradeFailed):
        assert math.isfinite(Formula.parse(text, NAMES).evaluate({"a": 0.5, "b": -1.0, "max": 0.0}))
