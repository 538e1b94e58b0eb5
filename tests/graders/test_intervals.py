import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from graders import GraderInvalid, parse_grader
from graders.formula import Formula
from graders.intervals import UNBOUNDED, Interval, bounds_of
from graders.spec import known_range
from graders.types import GradeFailed
from tests.graders.test_formula import formulas
from tests.properties import examples

INF = math.inf
NAMES = frozenset({"a", "b", "c"})
RANGES = {"a": Interval(0, 1), "b": Interval(-5, 5), "c": Interval(2, 3)}


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("0 - a", -1, 0),
        ("-a", -1, 0),
        ("+a", 0, 1),
        ("a + b", -5, 6),
        ("a - b", -5, 6),
        ("0.5 * a - 2 * c", -6, -3.5),
        ("b * b", -25, 25),
        ("b ^ 2", 0, 25),
        ("b ^ 3", -125, 125),
        ("b ^ -1", -INF, INF),
        ("b ^ 0", 1, 1),
        ("b ^ a", -5, 5),
        ("b ^ 0.5", 0, math.sqrt(5)),
        ("c ^ b", 3**-5, 3**5),
        ("2 ^ -c", 1 / 8, 1 / 4),
        ("a / c", 0, 0.5),
        ("b / c", -2.5, 2.5),
        ("1 / a", 1, INF),
        ("-1 / a", -INF, -1),
        ("a / a", 0, INF),
        ("1 / b", -INF, INF),
        ("1 / (a - a)", -INF, INF),
        ("a / 0", -INF, INF),
        ("abs(b)", 0, 5),
        ("abs(c)", 2, 3),
        ("abs(-c)", 2, 3),
        ("floor(b / 2)", -3, 2),
        ("ceil(a + 0.5)", 1, 2),
        ("exp(a)", 1, math.e),
        ("exp(1000 * b)", 0, INF),
        ("sqrt(b)", 0, math.sqrt(5)),
        ("sqrt(-c)", -INF, INF),
        ("log(a)", -INF, 0),
        ("log(c)", math.log(2), math.log(3)),
        ("min(a, b, c)", -5, 1),
        ("max(a, b)", 0, 5),
        ("max(c)", 2, 3),
        ("1 / a - 1 / a", -INF, INF),
        ("0 * log(a)", 0, 0),
        ("9 ^ 9 ^ 9 ^ 9", INF, INF),
    ],
)
def test_bounds_by_hand(text, low, high):
    found = bounds_of(Formula.parse(text, NAMES).tree, RANGES)
    assert found == (pytest.approx(low), pytest.approx(high))


def test_a_name_without_a_range_may_be_anything():
    assert bounds_of(Formula.parse("1 - a", NAMES).tree, {}) == UNBOUNDED


@examples(200)
@given(formulas, st.floats(-4, 4), st.floats(0, 1), st.floats(0, 4), st.floats(0, 0.5))
@example("-a^b", -2.0, 0.5, 1.0, 0.5)
def test_every_value_of_a_formula_is_within_its_bounds(text, a, b, room, more):
    try:
        formula = Formula.parse(text, frozenset("ab"))
        found = formula.evaluate({"a": a, "b": b})
    except (GraderInvalid, GradeFailed):
        return
    low, high = bounds_of(formula.tree, {"a": Interval(a - room, a + more), "b": Interval(b, b + room)})
    slack = 1e-9 * max(1.0, abs(found))
    assert low - slack <= found <= high + slack


TEXT = "{{sample.output_text}}"
EQUALS = {"type": "string_check", "input": TEXT, "reference": "x", "operation": "eq"}
JUDGE = {"type": "score_model", "model": "m", "input": [{"role": "user", "content": TEXT}], "range": [-5, 5]}
CODE = {"type": "python", "source": "def grade(sample, item):\n    return 0"}
SERVER = {"type": "endpoint", "url": "https://example.com/grade"}


def combined(formula, **graders):
    return {"type": "multi", "graders": graders, "calculate_output": formula}


@pytest.mark.parametrize(
    ("grader", "expected"),
    [
        pytest.param(EQUALS, (0, 1), id="string_check"),
        pytest.param({"type": "math", "input": TEXT, "reference": "1"}, (0, 1), id="math"),
        pytest.param({"type": "rlvr", "scale": 10.0}, (0, 10), id="rlvr"),
        pytest.param(JUDGE, (-5, 5), id="judge"),
        pytest.param({k: v for k, v in JUDGE.items() if k != "range"}, (0, 1), id="judge-by-default"),
        pytest.param(CODE, None, id="code"),
        pytest.param({**CODE, "range": [-2, 3]}, (-2, 3), id="code-that-says"),
        pytest.param(SERVER, None, id="server"),
        pytest.param({**SERVER, "range": [0, 100.0]}, (0, 100), id="server-that-says"),
        pytest.param(combined("0 - wrong", wrong=EQUALS), (-1, 0), id="penalty"),
        pytest.param(combined("a - 0.1 * j", a=EQUALS, j=JUDGE), (-0.5, 1.5), id="judge-taken-off"),
        pytest.param(combined("a + c", a=EQUALS, c=CODE), None, id="unknown-part"),
        pytest.param(combined("max(0, min(1, c))", c=CODE), (0, 1), id="unknown-part-held"),
        pytest.param(combined("log(a)", a=EQUALS), None, id="no-least"),
    ],
)
def test_range_of_a_grader(grader, expected):
    assert known_range(parse_grader(grader)) == expected


@pytest.mark.parametrize("kind", [CODE, SERVER], ids=["python", "endpoint"])
@pytest.mark.parametrize("bounds", [[1, 0], [1, 1], [0], [0, 1, 2], ["0", "1"], [0, 1e10], 1])
def test_a_range_is_two_rising_numbers(kind, bounds):
    with pytest.raises(GraderInvalid) as caught:
        parse_grader({**kind, "range": bounds})
    assert caught.value.param.startswith("range")
