from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graders.fields.matching import best_assignment, overlap
from graders.fields.spec import DateRule, FuzzyRule, NumberRule, TextRule
from tests.properties import examples

EXACT = TextRule(compare="exact")
NEAR = NumberRule(compare="number", abs_tolerance=1.0)
FUZZY = FuzzyRule(compare="fuzzy")
ORDERS = ["set", "multiset", "list"]


def f1(order, rule, answer, reference):
    return overlap(order, rule, answer, reference, "x").f1


@pytest.mark.parametrize(
    ("order", "answer", "reference", "precision", "recall"),
    [
        pytest.param("set", ["a", "b"], ["b", "a"], 1, 1, id="set-ignores-order"),
        pytest.param("set", ["a", "a"], ["a"], 1 / 2, 1, id="set-repeat-is-wrong"),
        pytest.param("set", ["a", "a"], ["a", "b"], 1 / 2, 1 / 2, id="set-repeat-finds-nothing-new"),
        pytest.param("set", ["a"], ["a", "a"], 1, 1, id="set-reference-repeats"),
        pytest.param("set", ["a", "a"], ["a", "a"], 1, 1, id="set-copy-of-a-reference-that-repeats"),
        pytest.param("set", ["a", "a", "a"], ["a", "a"], 1 / 2, 1, id="set-more-repeats-than-the-reference"),
        pytest.param("multiset", ["a", "a"], ["a"], 1 / 2, 1, id="multiset-one-too-many"),
        pytest.param("multiset", ["a"], ["a", "a"], 1, 1 / 2, id="multiset-one-too-few"),
        pytest.param("multiset", ["b", "a"], ["a", "b"], 1, 1, id="multiset-ignores-order"),
        pytest.param("list", ["b", "a"], ["a", "b"], 1 / 2, 1 / 2, id="list-keeps-order"),
        pytest.param("list", ["a", "x", "b"], ["a", "b"], 2 / 3, 1, id="list-with-one-more"),
        pytest.param("set", [], [], 1, 1, id="both-empty"),
        pytest.param("set", ["a"], [], 0, 0, id="reference-empty"),
        pytest.param("set", [], ["a"], 0, 0, id="answer-empty"),
        pytest.param("set", ["a", None, ["a"], {"a": 1}, 5], ["a"], 1 / 5, 1, id="items-of-other-types"),
    ],
)
def test_precision_and_recall(order, answer, reference, precision, recall):
    found = overlap(order, EXACT, answer, reference, "x")
    assert (found.precision, found.recall) == (pytest.approx(precision), pytest.approx(recall))
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert found.f1 == pytest.approx(expected)


def test_numbers_match_within_tolerance_one_to_one():
    assert overlap("multiset", NEAR, [1.9, 0.9], [1, 2.5], "x").matched == 2
    assert overlap("multiset", NEAR, [1, 1], [1.5], "x").matched == 1
    assert overlap("list", NEAR, ["2", "1"], [1, 4], "x").matched == 1
    assert overlap("multiset", NEAR, ["one", True, None], [1], "x")[:3] == (0, 3, 1)


def test_a_repeat_in_a_set_does_not_match_a_similar_item():
    assert overlap("set", FUZZY, ["ab", "AB"], ["ab", "abc"], "x")[:3] == (1, 2, 2)
    assert overlap("set", NEAR, [1, "1"], [1, 2], "x")[:3] == (1, 2, 2)


def test_dates_match_by_day():
    dates = DateRule(compare="date")
    assert f1("set", dates, ["March 5, 2024", "never"], ["2024-03-05", "2024-01-01"]) == 0.5


def test_fuzzy_items_are_assigned_for_the_best_sum():
    answer, reference = ["abcx", "abyy"], ["abxx", "abcd"]
    # greedy would take abcx-abxx (0.75) or abcx-abcd (0.75) blindly; the best sum is 0.75 + 0.5
    assert overlap("multiset", FUZZY, answer, reference, "x").matched == pytest.approx(1.25)


def test_a_long_fuzzy_list_equal_to_its_reference_scores_one():
    long = [f"item number {i}" for i in range(700)]
    assert f1("list", FUZZY, long, long) == 1
    assert f1("multiset", FUZZY, long[::-1], long) == 1
    assert f1("list", NEAR, list(range(2000)), list(range(2000))) == 1


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("rule", [EXACT, NEAR, FUZZY], ids=["exact", "number", "fuzzy"])
def test_a_huge_answer_is_compared_and_does_not_pay(order, rule):
    answer = [f"{i}" for i in range(50_000)]
    assert f1(order, rule, answer, [1, 2, 3]) < 0.001


def tables(rows, columns):
    row = st.lists(st.sampled_from([0, 0.25, 0.5, 0.75, 1]), min_size=columns, max_size=columns)
    return st.lists(row, min_size=rows, max_size=rows)


@examples(100)
@given(st.integers(1, 4), st.integers(0, 2), st.data())
def test_assignment_is_the_best_of_all(rows, more, data):
    columns = rows + more
    scores = data.draw(tables(rows, columns))
    best = max(sum(scores[i][j] for i, j in enumerate(order)) for order in permutations(range(columns), rows))
    assert best_assignment(scores) == pytest.approx(best)


def test_no_rows_assign_nothing():
    assert best_assignment([]) == 0


numbers = st.lists(st.integers(0, 8), max_size=5)


@examples(150)
@given(numbers, numbers, st.sampled_from([0.0, 1.0, 2.5]), st.sampled_from([0.0, 0.3]))
def test_number_sweep_finds_the_most_pairs(answer, reference, absolute, relative):
    rule = NumberRule(compare="number", abs_tolerance=absolute, rel_tolerance=relative)
    agree = [[abs(a - r) <= max(absolute, relative * r) for r in reference] for a in answer]
    best = max(
        size
        for size in range(min(len(answer), len(reference)) + 1)
        if any(
            all(agree[i][j] for i, j in zip(rows, columns, strict=True))
            for rows in combinations(range(len(answer)), size)
            for columns in permutations(range(len(reference)), size)
        )
    )
    assert overlap("multiset", rule, answer, reference, "x").matched == best


items = st.lists(st.sampled_from(["a", "b", "ab", "abc", 1, 2, "1", None, True, ["a"]]), max_size=6)
rules = st.sampled_from(
    [EXACT, TextRule(compare="normalized"), FUZZY, FuzzyRule(compare="fuzzy", threshold=0.7)]
)


@examples(200)
@given(st.sampled_from(ORDERS), rules, items, items)
def test_scores_are_between_0_and_1_and_a_copy_scores_1(order, rule, answer, reference):
    found = overlap(order, rule, answer, reference, "x")
    assert 0 <= found.precision <= 1
    assert 0 <= found.recall <= 1
    assert 0 <= found.f1 <= 1
    assert f1(order, rule, reference, reference) == 1


@examples(150)
@given(st.sampled_from(["multiset", "list"]), rules, items, items)
def test_f1_is_symmetric(order, rule, answer, reference):
    assert f1(order, rule, answer, reference) == pytest.approx(f1(order, rule, reference, answer))


@examples(100)
@given(rules, items, items)
def test_keeping_order_is_never_easier_than_not(rule, answer, reference):
    assert f1("list", rule, answer, reference) <= f1("multiset", rule, answer, reference) + 1e-9


@examples(150)
@given(rules | st.just(NEAR), items, st.lists(st.sampled_from([1, "2", 2.5, "1"]), max_size=5), st.data())
def test_repeating_an_item_of_a_set_never_pays(rule, answer, reference, data):
    repeated = [*answer, data.draw(st.sampled_from(answer))] if answer else []
    assert f1("set", rule, repeated, reference) <= f1("set", rule, answer, reference)
