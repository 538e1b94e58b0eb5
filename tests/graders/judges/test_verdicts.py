"""What a judge said of criteria becomes a value, curves and a reason; what it left out is in none of them."""

import json

import pytest

from graders import FailureKind
from graders.judges.criteria import Criterion
from graders.judges.reply import MAX_REASON
from graders.judges.verdicts import Verdict, parts_of, read_verdicts, reason_of, schema_of, value_of
from graders.types import GradeFailed

DOCTOR = Criterion("Advises to see a doctor.", 7, "doctor", ("axis:care",))
CALM = Criterion("Is calm.", 3, "calm", ("axis:tone",))
LONG = Criterion("Is too long.", -4, "long", ("axis:tone",))
ALL = [DOCTOR, CALM, LONG]


def read(*met):
    return [Verdict(criterion, one) for criterion, one in zip(ALL, met, strict=True)]


VALUES = {
    "all-good": ((True, True, False), 1.0),
    "one-of-two": ((True, False, False), 0.7),
    "a-fault-subtracts": ((True, True, True), 0.6),
    "never-below-0": ((False, True, True), 0.0),
    "nothing": ((False, False, False), 0.0),
    "a-wanted-one-unanswered": ((None, True, False), 1.0),
    "unanswered-and-a-fault": ((True, None, True), 3 / 7),
    "a-fault-unanswered": ((True, False, None), 0.7),
}


@pytest.mark.parametrize(("met", "value"), VALUES.values(), ids=VALUES.keys())
def test_the_value_is_points_reached_over_points_to_reach_of_what_was_answered(met, value):
    assert value_of(read(*met)) == pytest.approx(value)


def test_each_criterion_and_tag_has_a_curve():
    assert parts_of(read(True, False, True)) == pytest.approx(
        {
            "doctor": 1.0,
            "calm": 0.0,
            "long": 1.0,
            "axis:care": 1.0,
            "axis:tone": -4 / 3,
            "wanted": 0.7,
            "unwanted": 1.0,
            "answered": 1.0,
        }
    )


def test_what_was_not_answered_is_in_no_curve():
    parts = parts_of(read(None, True, None))
    assert parts == pytest.approx({"calm": 1.0, "axis:tone": 1.0, "wanted": 1.0, "answered": 1 / 3})


def test_a_row_without_tags_has_the_curves_of_all():
    assert parts_of([Verdict(Criterion("x", 1), False)]) == {"wanted": 0.0, "answered": 1.0}


def said(*entries):
    return json.dumps({str(number): entry for number, entry in enumerate(entries, start=1)})


def test_verdicts_are_read_by_number():
    text = said({"reason": " it does ", "met": True}, {"reason": "no", "met": False}, {"met": True})
    assert read_verdicts(text, ALL) == [
        Verdict(DOCTOR, True, "it does"),
        Verdict(CALM, False, "no"),
        Verdict(LONG, True, ""),
    ]


@pytest.mark.parametrize("met", [None, 1, 0, "true", "yes", [], {}], ids=repr)
def test_neither_true_nor_false_is_no_answer(met):
    assert read_verdicts(said({"reason": "?", "met": met}, {"met": True}, {"met": True}), ALL)[0].met is None


@pytest.mark.parametrize("entry", [None, True, "met", [True]], ids=repr)
def test_what_is_no_entry_is_no_answer(entry):
    assert [one.met for one in read_verdicts(said(entry, {"met": True}, entry), ALL)] == [None, True, None]


def test_what_is_left_out_is_no_answer_and_what_nobody_asked_for_counts_nothing():
    text = said({"met": True}, {"met": True}, {"met": False}, {"met": True}, {"met": True})
    assert [one.met for one in read_verdicts(text, ALL)] == [True, True, False]
    assert [one.met for one in read_verdicts('{"3": {"met": true}}', ALL)] == [None, None, True]


@pytest.mark.parametrize(
    "text",
    [
        "All met.",
        'Here: {"1": {"met": true}}',
        '[{"met": true}]',
        '{"1": {"met": true}, "1": {"met": false}}',
        '{"1": {"met": tru',
    ],
)
def test_json_is_not_searched_for_in_prose(text):
    with pytest.raises(GradeFailed) as failed:
        read_verdicts(text, ALL)
    assert failed.value.failure.kind is FailureKind.MODEL_PARSE


def test_the_schema_holds_a_judge_to_every_criterion():
    schema = schema_of(3)
    assert schema["required"] == list(schema["properties"]) == ["1", "2", "3"]
    assert schema["properties"]["2"]["required"] == ["reason", "met"]


def test_the_reason_has_a_line_for_each_criterion_within_bounds():
    verdicts = [Verdict(DOCTOR, True, "It does."), Verdict(LONG, None)]
    assert reason_of(verdicts, "a remark").splitlines() == [
        "[met, +7] Advises to see a doctor.: It does.",
        "[not answered, -4] Is too long.:",
        "[a remark]",
    ]
    many = [Verdict(Criterion("x" * 500, 1), False, "y" * 5000)] * 30
    reason = reason_of(many, "")
    assert len(reason.splitlines()) == 30
    assert len(reason) < 2 * MAX_REASON
