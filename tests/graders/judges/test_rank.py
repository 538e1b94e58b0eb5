"""The grader `rank`: what a judge is shown of a group, and what becomes of its scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from graders import FailureKind, GraderInvalid, Sample, build_grader, dump_grader, parse_grader
from graders.judges.fence import RULE, fenced_texts
from graders.preflight.trial import Bounds, preflight
from graders.services import Question, Reply, Services
from graders.spec import is_of_groups
from graders.template import Variable
from graders.types import Failure, GradeFailed, TokenUsage

GRADER = {"type": "rank", "name": "better", "model": "judge"}
ITEM = {"messages": [{"role": "user", "content": "Count to five."}], "wanted": "digits"}
COST = TokenUsage(100, 10, calls=1)


class Scripted:
    """A judge that scores each answer by a function of its text, and remembers what it was asked."""

    def __init__(self, score: Callable[[str, int], Any]) -> None:
        self.score = score
        self.asked: list[Question] = []

    def check(self, *_: Any) -> None:
        """Takes everything."""

    def ask(self, question: Question) -> Reply:
        self.asked.append(question)
        shown = [(name, text) for name, text in self.shown(-1) if name.startswith("answer")]
        scores = [
            {"answer": name, "reason": f"saw {text}", "score": self.score(text, place)}
            for place, (name, text) in enumerate(shown)
        ]
        return Reply(json.dumps({"scores": scores}), COST)

    def shown(self, call: int) -> list[tuple[str, str]]:
        return fenced_texts(self.asked[call].messages[1]["content"])


def by_length(text: str, _place: int = 0) -> float:
    return min(1.0, len(text) / 10)


def rank(judge: Any, **more: Any) -> Any:
    return build_grader(parse_grader({**GRADER, **more}), Services(judge=judge))


def samples(*texts: str, draw: str = "train/1/1/0") -> list[Sample]:
    return [Sample(text, draw=draw) for text in texts]


def test_all_answers_are_asked_about_at_once_and_cost_once():
    judge = Scripted(by_length)
    grades = rank(judge).grade_group(samples("a", "abc", "abcde"), ITEM)
    assert [grade.value for grade in grades] == [0.1, 0.3, 0.5]
    assert [grade.reason for grade in grades] == ["saw a", "saw abc", "saw abcde"]
    assert [dict(grade.usage) for grade in grades] == [{"judge": COST}, {}, {}]
    (question,) = judge.asked
    system, user = (message["content"] for message in question.messages)
    assert system.count(RULE) == 1
    assert user.count("Count to five.") == 1
    assert sorted(name for name, _ in judge.shown(0)) == ["answer-1", "answer-2", "answer-3", "conversation"]
    assert question.schema["properties"]["scores"]["items"]["properties"]["answer"]["enum"] == [
        "answer-1",
        "answer-2",
        "answer-3",
    ]


def test_the_order_follows_from_the_draw_and_else_from_the_content():
    judge = Scripted(by_length)
    grader = rank(judge)
    texts = [f"answer of {n}" for n in range(6)]

    def order(draw: str, given: list[str]) -> list[str]:
        grader.grade_group(samples(*given, draw=draw), ITEM)
        return [text for name, text in judge.shown(-1) if name != "conversation"]

    assert order("a", texts) == order("a", texts[::-1]) != order("b", texts)
    assert order("", texts) == order("", texts[::-1])
    assert sorted(order("a", texts)) == sorted(texts)


def test_identical_answers_are_shown_once_and_get_the_same_score():
    judge = Scripted(by_length)
    grades = rank(judge).grade_group(samples("abc", "ab", "abc", "abc"), ITEM)
    assert [grade.value for grade in grades] == [0.3, 0.2, 0.3, 0.3]
    assert len(judge.shown(0)) == 3


def test_nothing_is_asked_where_nothing_differs_and_what_is_blank_is_worth_nothing():
    judge = Scripted(by_length)
    grades = rank(judge).grade_group(samples("same", " ", "same", ""), ITEM)
    assert [grade.value for grade in grades] == [0.5, 0.0, 0.5, 0.0]
    assert not judge.asked


def test_one_completion_by_itself_has_no_rank():
    grade = rank(Scripted(by_length)).grade(Sample("x"), ITEM)
    assert grade.failure.kind is FailureKind.OTHER
    assert "only this one" in grade.failure.message


def test_permutations_average_out_where_an_answer_stands_and_tell_how_far_they_lie_apart():
    judge = Scripted(lambda text, place: by_length(text) + (0.4 if place == 0 else 0.0))
    grades = rank(judge, permutations=2).grade_group(samples("abc", "ab"), ITEM)
    assert [grade.value for grade in grades] == pytest.approx([0.5, 0.4])
    assert [grade.parts["spread"] for grade in grades] == pytest.approx([0.4, 0.4])
    assert grades[0].usage["judge"] == COST + COST
    asked = len(judge.asked)
    rank(judge, permutations=16).grade_group(samples("abc", "ab"), ITEM)
    assert len(judge.asked) == asked + 2, "two answers have two orders"
    assert "spread" not in rank(judge).grade_group(samples("abc", "ab"), ITEM)[0].parts


def test_a_large_group_is_split_and_anchors_bring_both_calls_to_one_scale():
    """The judge scores each call within itself: its best answer gets 1."""

    class Relative(Scripted):
        def ask(self, question: Question) -> Reply:
            lowest = min(len(text) for name, text in fenced_texts(question.messages[1]["content"])[1:])
            self.score = lambda text, _: min(1.0, 0.3 + (len(text) - lowest) / 40)
            return super().ask(question)

    judge = Relative(by_length)
    texts = ["x" * length for length in range(1, 13)]
    grades = rank(judge).grade_group(samples(*texts), ITEM)
    assert len(judge.asked) == 2
    values = [grade.value for grade in grades]
    assert values == sorted(values)
    steps = [later - earlier for earlier, later in pairwise(values)]
    assert steps == pytest.approx([1 / 40] * 11)


def test_a_call_that_fails_fails_its_answers_by_name_and_a_missing_score_that_one():
    class Broken(Scripted):
        def ask(self, question: Question) -> Reply:
            raise GradeFailed(FailureKind.MODEL_SERVER, "away", usage={"judge": COST})

    grades = rank(Broken(by_length)).grade_group(samples("a", "b"), ITEM)
    assert [grade.failure for grade in grades] == [Failure(FailureKind.MODEL_SERVER, "away")] * 2
    assert grades[0].usage == {"judge": COST}
    missing, there = rank(Scripted(lambda text, _: None if text == "a" else 0.5)).grade_group(
        samples("a", "b"), ITEM
    )
    assert there.value == 0.5
    assert missing.failure.kind is FailureKind.MODEL_PARSE
    assert "no score" in missing.failure.message


@pytest.mark.parametrize("score", [7, -0.1, True, "0.5", None])
def test_scores_on_another_scale_or_of_no_number_are_no_scores(score):
    grades = rank(Scripted(lambda *_: score)).grade_group(samples("a", "b"), ITEM)
    assert {grade.failure.kind for grade in grades} == {FailureKind.MODEL_PARSE}


def test_a_permutation_that_fails_is_left_out():
    class Sometimes(Scripted):
        def ask(self, question: Question) -> Reply:
            if question.messages[1]["content"].index("\nabc\n") < question.messages[1]["content"].index(
                "\nab\n"
            ):
                raise GradeFailed(FailureKind.MODEL_REFUSAL, "no")
            return super().ask(question)

    grades = rank(Sometimes(by_length), permutations=2).grade_group(samples("abc", "ab"), ITEM)
    assert [grade.value for grade in grades] == [0.3, 0.2]


def test_a_judge_that_is_lost_in_one_permutation_leaves_the_group_without_a_grade() -> None:
    class Lost(Scripted):
        def ask(self, question: Question) -> Reply:
            if self.asked:
                raise GradeFailed(FailureKind.MODEL_SERVER, "away", lost="The judge is lost.")
            return super().ask(question)

    grades = rank(Lost(by_length), permutations=2).grade_group(samples("abc", "ab"), ITEM)
    assert [grade.lost for grade in grades] == ["The judge is lost."] * 2


def test_against_the_base_half_is_as_good_and_the_bases_own_answers_are_half():
    judge = Scripted(by_length)
    grader = rank(judge)
    own = samples("abc", "a", "", draw="")
    assert [grade.value for grade in grader.grade_group(own, ITEM, [])] == [0.5] * 3
    assert not judge.asked
    again = [grade.value for grade in grader.grade_group(own, ITEM, own)]
    assert sum(again) / 3 == pytest.approx(0.5)
    better, worse = grader.grade_group(samples("abcdefghij", "", draw=""), ITEM, samples("abc", "abcde"))
    assert (better.value, worse.value) == pytest.approx((0.85, 0.25))
    assert len(judge.asked) == 2
    unparsed = grader.grade_group(samples("abcdefghij", "abc", draw=""), ITEM, [None, *samples("abc")])
    assert [grade.value for grade in unparsed] == pytest.approx([0.85, 0.5])
    assert [grade.value for grade in grader.grade_group(own, ITEM, [None])] == [0.5] * 3


def test_a_base_that_got_no_score_leaves_nothing_to_compare_with():
    judge = Scripted(lambda text, _: None if text == "base" else 0.5)
    (grade,) = rank(judge).grade_group(samples("mine"), ITEM, samples("base"))
    assert grade.failure.message == "The judge gave none of the base's answers a score."


def test_what_episodes_have_in_common_is_told_once_and_the_rest_with_each_answer():
    call = {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "function": {"name": "look"}}]}
    reply = {"role": "tool", "content": "It rains."}
    more = {"role": "tool", "content": "It snows."}
    last = {"role": "assistant", "content": "Rain."}
    judge = Scripted(by_length)
    grades = rank(judge).grade_group(
        [Sample("Rain.", messages=[call, reply, last]), Sample("Snow!!", messages=[call, reply, call, more])],
        ITEM,
    )
    assert [grade.value for grade in grades] == [0.5, 0.6]
    shown = dict(judge.shown(0))
    assert shown["conversation"].count("It rains.") == shown["conversation"].count("look") == 1
    steps = [text for name, text in shown.items() if name.startswith("steps")]
    assert len(steps) == 1
    assert "It snows." in steps[0]
    assert "It rains." not in steps[0]


def test_answers_that_cannot_be_rendered_fail_alone_and_the_others_are_compared():
    judge = Scripted(by_length)
    bad, *good = rank(judge, input="{{sample.output_json.x}}").grade_group(
        samples("no", '{"x": "abc"}', '{"x": "ab"}'), ITEM
    )
    assert bad.failure.kind is FailureKind.SAMPLE_PARSE
    assert [grade.value for grade in good] == [0.3, 0.2]


def test_a_row_without_what_the_instruction_reads_fails_each_of_the_group():
    grader = rank(Scripted(by_length), instruction="Likes {{item.wanted}}")
    grades = grader.grade_group(samples("a", "b"), {})
    assert {grade.failure.kind for grade in grades} == {FailureKind.INVALID_VARIABLE}


def test_thoughts_are_not_shown_and_a_multi_passes_groups_on():
    judge = Scripted(by_length)
    spec = parse_grader(
        {
            "type": "multi",
            "graders": {
                "better": GRADER,
                "is_ab": {
                    "type": "string_check",
                    "operation": "eq",
                    "input": "{{sample.output_text}}",
                    "reference": "ab",
                },
            },
            "calculate_output": "better + is_ab",
        }
    )
    assert is_of_groups(spec)
    grades = build_grader(spec, Services(judge=judge)).grade_group(
        samples("<think>long thoughts</think>ab", "abcd"), ITEM
    )
    assert [grade.value for grade in grades] == [1.2, 0.4]
    assert [grade.parts for grade in grades] == [{"better": 0.2, "is_ab": 1.0}, {"better": 0.4, "is_ab": 0.0}]


def test_a_preflight_asks_once_a_row_about_the_right_answer_among_hostile_ones() -> None:
    judge = Scripted(lambda text, _: 1.0 if text in ("Pisa", "Bergen") else 0.1)
    rows = [{**ITEM, "answer": town} for town in ("Pisa", "Bergen", "Cusco", "Ghent")]
    spec = parse_grader(GRADER)
    options = {"reference": Variable.parse("item.answer"), "bounds": Bounds(rows=2)}
    report = preflight(spec, build_grader(spec, Services(judge=judge)), rows, **options)
    assert len(judge.asked) == 2
    right = {trial.line: trial.value for trial in report.trials if trial.is_reference}
    assert right == {1: 1.0, 3: 0.1}
    assert not {"rows_disagree", "below_maximum"} & {one.code for one in report.findings}
    fooled = Scripted(lambda text, _: 1.0)
    report = preflight(spec, build_grader(spec, Services(judge=fooled)), rows, **options)
    assert report.warnings


def test_the_form_of_a_rank_grader():
    spec = parse_grader(GRADER)
    assert dump_grader(spec) == GRADER
    assert (spec.calls_of(8), spec.calls_of(9), spec.usual_calls, spec.calls_per_grade) == (1, 2, 1, 5)
    with pytest.raises(GraderInvalid, match="same for all answers"):
        parse_grader({**GRADER, "instruction": "{{sample.output_text}}"})
    with pytest.raises(GraderInvalid, match="permutations"):
        parse_grader({**GRADER, "permutations": 0})
