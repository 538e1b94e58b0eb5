"""Rubrics are read in the forms in which they are published, and refused by name where they cannot be."""

import json

import pytest

from graders import FailureKind
from graders.judges.criteria import MAX_CRITERIA, Criterion, names_of, read_rubric
from graders.judges.dropout import kept
from graders.judges.verdicts import RESERVED
from graders.types import GradeFailed

HEALTHBENCH = [
    {"criterion": "Advises to see a doctor.", "points": 7, "tags": ["level:example", "axis:completeness"]},
    {"criterion": "Is needlessly long.", "points": -4, "tags": ["level:example", "axis:communication"]},
]
OPEN_INSTRUCT = {
    "query": "Why is the sky blue?",
    "rubrics": [{"description": "Names scattering.", "weight": 2}],
}
AS_REWARDS = [
    {"title": "Best test", "description": "Essential Criteria: Names the MRI.", "weight": 5},
    {"title": "Wrong test", "description": "Pitfall Criteria: Recommends an X-ray.", "weight": -1},
]


def test_healthbench_rows_are_read_as_published():
    doctor, long = read_rubric(HEALTHBENCH).criteria
    assert doctor == Criterion("Advises to see a doctor.", 7, "", ("level:example", "axis:completeness"))
    assert (long.points, long.tags[1]) == (-4, "axis:communication")


@pytest.mark.parametrize("form", [OPEN_INSTRUCT, json.dumps(OPEN_INSTRUCT)], ids=["object", "text"])
def test_open_instructs_rows_bring_their_query(form):
    rubric = read_rubric(form)
    assert rubric.query == "Why is the sky blue?"
    assert rubric.criteria == (Criterion("Names scattering.", 2),)


def test_a_criterion_without_a_weight_has_one_as_in_open_instruct():
    assert read_rubric({"Question": "?", "rubrics": [{"Ingredient": "x"}]}).criteria[0].points == 1


def test_kinds_of_rubrics_as_rewards_are_tags():
    assert [one.tags for one in read_rubric(AS_REWARDS).criteria] == [("essential",), ("pitfall",)]
    assert [one.points for one in read_rubric({"rubric": AS_REWARDS}).criteria] == [5, -1]


UNREADABLE = {
    "no-list": ({"rubrics": "be good"}, "no list of criteria"),
    "nothing": (None, "no list"),
    "prose": ("be good", "not JSON"),
    "empty": ([], "0 criteria"),
    "too-many": ([{"criterion": "x", "points": 1}] * (MAX_CRITERIA + 1), "101 criteria"),
    "a-text": (["be good"], "criterion 1 no object"),
    "no-text": ([{"criterion": "x", "points": 1}, {"criterion": " ", "points": 1}], "no text in criterion 2"),
    "points-in-quotes": ([{"criterion": "x", "points": "5"}], "'points' of criterion 1 no number"),
    "points-true": ([{"criterion": "x", "points": True}], "'points' of criterion 1 no number"),
    "weight-null": ([{"description": "x", "weight": None}], "'weight' of criterion 1 no number"),
    "only-faults": ([{"criterion": "x", "points": -5}, {"criterion": "y", "points": 0}], "points above 0"),
    "tags": ([{"criterion": "x", "points": 5, "tags": "axis"}], "'tags' of criterion 1"),
}


@pytest.mark.parametrize(("value", "named"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_is_no_rubric_is_a_failure_of_the_row_that_says_why(value, named):
    with pytest.raises(GradeFailed) as failed:
        read_rubric(value)
    assert failed.value.failure.kind is FailureKind.INVALID_VARIABLE
    assert named in failed.value.failure.message


def test_curves_have_short_names_of_their_own():
    texts = [
        "Names the capital of the country that was asked for, by its name.",
        "Names it.",
        "Names it!",
        "???",
    ]
    assert names_of(texts, [None] * 4, RESERVED) == [
        "names-the-capital-of-the-country-that-was-asked",
        "names-it",
        "names-it-2",
        "criterion-4",
    ]
    assert names_of(["Answered?", "x"], [None, "y"], RESERVED) == ["answered-2", "y"]


CRITERIA = [Criterion(f"c{n}", -1 if n % 2 else 1) for n in range(10)]
DRAWS = [f"train/0/{step}/{row}" for step in range(50) for row in range(8)]


def test_dropout_follows_from_the_draw_alone():
    found = [kept(CRITERIA, 0.3, "care", draw) for draw in DRAWS]
    assert found == [kept(CRITERIA, 0.3, "care", draw) for draw in DRAWS]
    assert all(places == sorted(set(places)) and len(places) == 7 for places in found)
    assert len({tuple(places) for places in found}) > 50
    shares = [sum(place in places for places in found) / len(found) for place in range(10)]
    assert all(abs(share - 0.7) < 0.1 for share in shares)  # 400 draws: 4 standard errors


def test_two_rubrics_of_one_draw_drop_apart():
    assert [kept(CRITERIA, 0.5, "care", draw) for draw in DRAWS] != [
        kept(CRITERIA, 0.5, "tone", draw) for draw in DRAWS
    ]


def test_without_a_draw_nothing_is_left_to_chance():
    assert kept(CRITERIA, 0.9, "care", "") == list(range(10))


@pytest.mark.parametrize("dropout", [0.5, 0.99])
def test_something_to_reach_is_always_kept(dropout):
    one_wanted = [Criterion("fault", -1), Criterion("wanted", 1), Criterion("other fault", -1)]
    for draw in DRAWS:
        places = kept(one_wanted, dropout, "care", draw)
        assert 1 in places
        assert places == sorted(set(places))


def test_a_share_that_is_no_whole_number_of_criteria_is_met_in_the_mean():
    sizes = [len(kept(CRITERIA[:3], 0.1, "care", draw)) for draw in DRAWS]
    assert set(sizes) == {2, 3}
    assert abs(sum(sizes) / len(sizes) - 2.7) < 0.1
