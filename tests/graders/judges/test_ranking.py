"""How answers are split into calls and shuffled, and how their scores come to one scale."""

import random
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graders.judges.ranking import anchors_of, calls_for, on_one_scale, permuted, split
from tests.properties import examples


def texts(n):
    return [f"text {i}" for i in range(n)]


@pytest.mark.parametrize(
    ("answers", "most", "calls"), [(2, 8, 1), (8, 8, 1), (9, 8, 2), (14, 8, 2), (15, 8, 3), (16, 4, 7)]
)
def test_as_few_calls_as_hold_all_answers_beside_the_anchors(answers, most, calls):
    found = split(texts(answers), "seed", most)
    assert len(found.calls) == calls == calls_for(answers, most)
    assert all(len(call) == len(set(call)) <= most for call in found.calls)
    assert set().union(*found.calls) == set(range(answers))
    shared = set(found.calls[0]).intersection(*found.calls)
    assert shared == (set(found.anchors) if calls > 1 else set(range(answers)))
    assert len(found.anchors) == (anchors_of(most) if calls > 1 else 0)


def test_the_order_follows_from_the_seed_and_the_texts_not_from_the_order_they_came_in():
    answers = texts(6)
    (order,) = split(answers, "a", 8).calls
    (of_reversed,) = split(answers[::-1], "a", 8).calls
    assert [answers[i] for i in order] == [answers[::-1][i] for i in of_reversed]
    orders = {tuple(split(answers, str(seed), 8).calls[0]) for seed in range(50)}
    assert len(orders) > 40
    firsts = [split(answers, str(seed), 8).calls[0][0] for seed in range(600)]
    assert all(60 < firsts.count(number) < 140 for number in range(6))


def test_with_as_many_permutations_as_answers_each_stands_once_in_every_place():
    call = [3, 0, 2, 1]
    orders = [permuted(call, p, 4) for p in range(4)]
    assert all(set(places) == {0, 1, 2, 3} for places in zip(*orders, strict=True))
    assert permuted([0, 1], 1, 2) == [1, 0]


def test_calls_that_score_lower_are_moved_up_by_what_their_anchors_lack():
    """The second judge gives all 0.2 less: the anchors 0 and 1 tell."""
    calls = [{0: 0.6, 1: 0.4, 2: 0.8}, {0: 0.4, 1: 0.2, 3: 0.6}]
    found = on_one_scale(calls, [0, 1])
    assert found == pytest.approx({0: 0.5, 1: 0.3, 2: 0.7, 3: 0.7})


def test_an_anchor_without_a_score_in_each_call_tells_nothing_and_without_any_there_is_no_scale():
    calls = [{0: 0.6, 1: 0.4, 2: 0.8}, {0: 0.4, 3: 0.6}]
    assert on_one_scale(calls, [0, 1]) == pytest.approx({0: 0.5, 1: 0.3, 2: 0.7, 3: 0.7})
    assert on_one_scale([{0: 0.6, 2: 0.8}, {1: 0.4, 3: 0.6}], [0, 1]) == {}


score = st.integers(0, 100).map(lambda hundredths: hundredths / 100)


@examples(30)
@given(st.lists(st.tuples(score, score, score), min_size=1, max_size=4))
def test_scores_stay_within_0_and_1_and_those_of_one_call_as_they_are(scores):
    calls = [{0: a, 1: b, 2 + place: other} for place, (a, b, other) in enumerate(scores)]
    found = on_one_scale(calls, [0, 1])
    assert len(found) == 2 + len(calls)
    assert all(0 <= one <= 1 for one in found.values())
    if len(calls) == 1:
        assert found == calls[0]


def error_of_split(n_anchors, noise, seed=0):
    """Returns the error of scores of 16 answers in calls of 8, whose judge is noisy and drifts by call."""
    chance, errors = random.Random(seed), []
    for _ in range(300):
        worth = [chance.random() * 0.6 + 0.2 for _ in range(16)]
        others = list(range(n_anchors, 16))
        room = 8 - n_anchors
        blocks = [others[i : i + room] for i in range(0, len(others), room)]
        calls = []
        for block in blocks:
            drift = chance.gauss(0, 0.1)
            calls.append({i: worth[i] + drift + chance.gauss(0, noise) for i in (*range(n_anchors), *block)})
        found = on_one_scale(calls, list(range(n_anchors)))
        mean, true = fmean(found.values()), fmean(worth)
        errors += [found[i] - mean - (worth[i] - true) for i in range(16)]
    return pstdev(errors)


def test_two_anchors_of_eight_answers_take_most_of_a_calls_drift():
    """Without anchors the drift of 0.1 would stay; one alone carries the noise of its score."""
    two, one = error_of_split(2, 0.05), error_of_split(1, 0.05)
    assert two < 0.06 < 0.1 < (0.05**2 + 0.1**2) ** 0.5
    assert two < one
