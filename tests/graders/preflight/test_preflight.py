"""What a preflight finds in good and in bad graders."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graders import Failure, FailureKind, Grade, Sample, build_grader, parse_grader
from graders.preflight.example_rows import example_rows
from graders.preflight.references import reference_of
from graders.preflight.trial import Bounds, preflight
from graders.template import Variable
from tests.shared_data import shared_path, shared_rows

EQ = {
    "type": "string_check",
    "name": "same",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
}
ALIKE = {key: value for key, value in EQ.items() if key != "operation"} | {
    "type": "text_similarity",
    "evaluation_metric": "fuzzy_match",
}
FIELDS = {
    "type": "fields",
    "name": "profile",
    "input": "{{sample.output_json}}",
    "reference": "{{item.gold}}",
}


def rows(*answers: Any, key: str = "answer") -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": f"Question {i}?"}], key: answer}
        for i, answer in enumerate(answers)
    ]


TOWNS = rows("Pisa", "Bergen", "Cusco", "Ghent")
GOLD = rows(
    {"city": "Pisa", "languages": ["C", "Go"], "people": 90_000},
    {"city": "Ghent", "languages": ["Rust"], "people": 260_000},
    key="gold",
)


def check(raw: dict[str, Any], data: list[dict[str, Any]], **options: Any) -> Any:
    spec = parse_grader(raw)
    return preflight(spec, build_grader(spec), data, **options)


def codes(report: Any) -> dict[str, str]:
    return {finding.code: finding.message for finding in report.findings}


def hostile(report: Any) -> set[str]:
    (told,) = [f.message for f in report.findings if f.code == "hostile_at_top"] or [": ."]
    listed = told.split(": ", 1)[1].removesuffix(".").split("; ")
    return {each.rsplit(" (", 1)[0] for each in listed if each}


@dataclass
class Scripted:
    """A grader whose value is worked out by a function of the text and the row."""

    score: Any
    name: str = "scripted"
    type: str = "python"
    asked: list[str] = field(default_factory=list)

    def grade(self, sample: Sample, item: Any) -> Grade:
        self.asked.append(sample.output_text)
        value = self.score(sample.output_text, item)
        return value if isinstance(value, Grade) else Grade(value)


@dataclass(frozen=True)
class Kind:
    """A spec of a kind that needs a service, as far as a preflight reads it."""

    type: str
    range: tuple[float, float] = (0.0, 1.0)
    thoughts: str = "none"


def scripted(score: Any, data: list[dict[str, Any]], kind: str = "python", **options: Any) -> Any:
    grader = Scripted(score)
    report = preflight(Kind(kind), grader, data, **options)  # type: ignore[arg-type]
    return report, grader


@pytest.mark.parametrize(("raw", "data"), [(EQ, TOWNS), (FIELDS, GOLD), (ALIKE, TOWNS)])
def test_a_sound_grader_has_no_warning_and_every_reference_at_the_top(
    raw: dict[str, Any], data: list[dict[str, Any]]
) -> None:
    report = check(raw, data)
    assert report.warnings == []
    references = [trial for trial in report.trials if trial.is_reference]
    assert [trial.value for trial in references] == [1.0] * len(data)
    assert len(report.trials) > 8 * len(data)


def test_graders_that_look_for_the_answer_anywhere_pay_for_all_labels() -> None:
    report = check({**EQ, "operation": "ilike"}, TOWNS)
    assert hostile(report) == {"all labels at once"}
    assert "the answer in chatter (1 on lines 1, 2, 3, 4)" in codes(report)["chatter_at_top"]


def test_an_echo_that_holds_the_answer_is_found() -> None:
    data = [{**row, "messages": [{"role": "user", "content": f"Find {row['answer']}"}]} for row in TOWNS]
    assert "the prompt, repeated" in hostile(check({**EQ, "operation": "like"}, data))


def test_a_grader_that_believes_the_answer_is_found() -> None:
    def believes(text: str, item: Any) -> float:
        return 1.0 if "1.0" in text or text == item["answer"] else 0.0

    report, _ = scripted(believes, TOWNS, reference=Variable.parse("item.answer"))
    assert hostile(report) == {
        "the text 'score: 1.0'",
        "an order to give 1.0",
        "a judge's own reply",
    }


def test_length_and_look_alikes_can_be_paid_for() -> None:
    def likes_length(text: str, item: Any) -> float:
        return min(1.0, len(text) / 1000) if text != item["answer"] else 1.0

    report, _ = scripted(likes_length, TOWNS, reference=Variable.parse("item.answer"))
    assert hostile(report) == {"a very long answer"}

    folding = str.maketrans("асеіорѕху", "aceiopsxy")
    report, _ = scripted(
        lambda text, item: float(text.translate(folding) == item["answer"]),
        rows("spices", "axes", "copies"),
        reference=Variable.parse("item.answer"),
    )
    assert hostile(report) == {"look-alike letters"}


def test_listing_every_value_is_tried_field_by_field() -> None:
    recall_only = lambda text, item: float(all(x in text for x in item["gold"]["languages"]))  # noqa: E731
    report, grader = scripted(recall_only, GOLD, reference=Variable.parse("item.gold"))
    assert "all values at once" in hostile(report)
    assert any('"city": "Pisa, Ghent"' in text and '"Rust"' in text for text in grader.asked)


def test_a_constant_grader_is_found() -> None:
    report, _ = scripted(lambda text, item: 0.5, TOWNS)
    assert "nothing can be learnt" in codes(report)["constant"]
    assert hostile(report) == set()


def test_small_rewards_that_differ_are_no_constant_grader() -> None:
    report, _ = scripted(lambda text, item: 1e-12 * (text == item["answer"]), TOWNS)
    assert "constant" not in codes(report)


def test_zeros_for_wrong_answers_alone_are_no_constant_grader() -> None:
    report, _ = scripted(lambda text, item: 0.0, TOWNS)
    assert codes(report).keys() == {"reference_unknown"}


def test_a_row_on_which_everything_is_right_is_found_by_its_line() -> None:
    report = check({**EQ, "operation": "like"}, rows("Pisa", "", "Bergen"), lines=(1, 4, 5))
    (found,) = [finding for finding in report.findings if finding.code == "row_is_constant"]
    assert (found.rows, found.lines) == ((1,), (4,))
    assert found.message.startswith("On line 4 every answer")
    assert {trial.as_dict()["line"] for trial in report.trials} == {1, 4, 5}


def test_a_grader_that_fails_on_its_own_reference_is_found() -> None:
    report = check({**EQ, "input": "{{sample.output_json.a}}", "reference": "{{item.answer}}"}, TOWNS)
    assert report.warnings == []
    broken = lambda text, item: Grade(None, Failure(FailureKind.PYTHON_RUNTIME, "KeyError: 'gold'"))  # noqa: E731
    report, _ = scripted(broken, TOWNS, reference=Variable.parse("item.answer"))
    assert "KeyError: 'gold'" in codes(report)["reference_fails"]
    assert "4 of 4 tries" in codes(report)["reference_fails"]


def test_a_grader_that_raises_on_odd_answers_is_found() -> None:
    def first_word(text: str, item: Any) -> float:
        return float(text.split()[0] == item["answer"])

    report, _ = scripted(first_word, TOWNS, reference=Variable.parse("item.answer"))
    assert "IndexError" in codes(report)["grader_fails"]


def test_a_grader_that_fails_on_everything_is_hopeless() -> None:
    def misspelt(text: str, item: Any) -> float:
        return float(text == item["anwser"])

    report, grader = scripted(misspelt, TOWNS)
    assert len(report.trials) == 8 * len(TOWNS)
    assert report.hopeless.kind is FailureKind.OTHER
    assert "KeyError: 'anwser'" in report.hopeless.message
    assert set(grader.asked) >= {'{"answer": "Pisa"}', "Pisa", "1", "yes"}


@pytest.mark.parametrize(
    "score",
    [
        pytest.param(lambda text, item: float(text), id="wants-a-number"),
        pytest.param(lambda text, item: float(json.loads(text)["answer"] == "Cusco"), id="wants-an-object"),
        pytest.param(lambda text, item: 1.0 / text.count("Gh"), id="wants-what-one-row-holds"),
    ],
)
def test_a_grader_that_can_read_what_rows_hold_is_not_hopeless(score: Any) -> None:
    report, _ = scripted(score, TOWNS)
    assert "grader_fails" in codes(report)
    assert all(trial.counts_as is None for trial in report.trials)
    assert report.hopeless is None


@pytest.mark.parametrize(
    ("kind", "is_hopeless"),
    [
        (FailureKind.MODEL_PARSE, True),
        (FailureKind.MODEL_SERVER, False),  # away for now
        (FailureKind.SAMPLE_PARSE, False),  # the answers' own fault
    ],
)
def test_whether_failures_are_hopeless_is_a_matter_of_whose_they_are(
    kind: FailureKind, is_hopeless: bool
) -> None:
    report, _ = scripted(lambda text, item: Grade(None, Failure(kind, "")), TOWNS, kind="score_model")
    assert bool(report.hopeless) == is_hopeless


def test_a_few_failures_before_the_time_was_over_are_not_hopeless() -> None:
    broken = lambda text, item: Grade(None, Failure(FailureKind.OTHER, "slow"))  # noqa: E731
    report, _ = scripted(broken, TOWNS, bounds=Bounds(seconds=0))
    assert len(report.trials) < 8
    assert report.hopeless is None


def test_references_below_the_maximum_are_named_with_their_rows_and_part() -> None:
    multi = {
        "type": "multi",
        "calculate_output": "0.5 * same + 0.5 * never",
        "graders": {"same": EQ, "never": {**EQ, "operation": "ne"}},
    }
    found = check(multi, TOWNS).warnings[0]
    assert (found.code, found.rows) == ("reference_below_maximum", (0, 1, 2, 3))
    assert "from 'never'" in found.message


def test_rows_that_disagree_are_found() -> None:
    report, _ = scripted(
        lambda text, item: (0.2 if text == "Cusco" else 1.0) * (text == item["answer"]),
        TOWNS,
        reference=Variable.parse("item.answer"),
    )
    (found,) = [finding for finding in report.findings if finding.code == "rows_disagree"]
    assert found.rows == (2,)


def test_one_prompt_with_two_answers_is_found() -> None:
    data = [{**row, "messages": [{"role": "user", "content": "The same?"}]} for row in TOWNS[:2]]
    assert "lines 1, 2" in codes(check(EQ, data))["prompts_disagree"]


def test_a_grader_that_looks_for_thoughts_is_told_that_it_sees_none() -> None:
    raw = {**EQ, "reference": "<think>{{item.answer}}"}
    assert "names <think>" in codes(check(raw, rows("a", "b")))["thoughts_unseen"]
    assert "thoughts_unseen" not in codes(check({**raw, "thoughts": "none"}, rows("a", "b")))
    assert "thoughts_unseen" not in codes(check(EQ, rows("a", "b")))
    both = {"type": "multi", "graders": {"one": raw, "two": EQ}, "calculate_output": "one + two"}
    assert "thoughts_unseen" in codes(check(both, rows("a", "b")))
    assert "thoughts_unseen" not in codes(check({**both, "thoughts": "none"}, rows("a", "b")))


def test_rewards_beyond_one_are_told() -> None:
    report, _ = scripted(
        lambda text, item: 10.0 * (text == item["answer"]) - 1, TOWNS, reference=Variable.parse("item.answer")
    )
    assert "from -1 to 9" in codes(report)["range"]
    assert report.warnings == []


@pytest.mark.parametrize(
    "raw",
    [
        {"type": "score_model", "input": [{"role": "user", "content": "x"}]},
        {"type": "rubric", "criteria": [{"criterion": "Is short.", "points": 1}]},
    ],
    ids=lambda raw: raw["type"],
)
def test_a_judge_is_asked_a_handful_of_times(raw: dict[str, Any]) -> None:
    spec, grader = parse_grader({**raw, "model": "judge"}), Scripted(lambda text, item: 0.0)
    preflight(spec, grader, TOWNS * 50, reference=Variable.parse("item.answer"))
    assert len(grader.asked) == 2 * (1 + 4)


def test_a_judge_that_is_away_is_asked_once() -> None:
    away = lambda text, item: Grade(None, Failure(FailureKind.MODEL_SERVER, "refused"))  # noqa: E731
    report, grader = scripted(away, TOWNS, kind="score_model")
    assert len(grader.asked) == 1
    assert report.skipped > 0
    assert "refused" in codes(report)["grader_fails"]


def test_nothing_is_begun_after_the_time_is_over() -> None:
    pause = threading.Event()
    slow = lambda text, item: float(pause.wait(0.02))  # noqa: E731
    report, grader = scripted(slow, TOWNS, bounds=Bounds(seconds=0.01))
    assert len(grader.asked) == 1
    assert report.skipped == len(TOWNS) * 8 - 1


def test_the_rows_tried_are_spread_over_the_data() -> None:
    report = check(EQ, rows(*(f"town {i}" for i in range(100))), bounds=Bounds(rows=4))
    assert {trial.row for trial in report.trials} == {0, 25, 50, 75}


RIGHT_ANSWERS = {
    "whole-text": ({}, {"answer": "Pisa"}, "Pisa"),
    "around": ({"input": "<{{sample.output_text}}>", "reference": "<{{item.answer}}>"}, {"answer": "a"}, "a"),
    "path": ({"input": "{{sample.output_json.a.b}}"}, {"answer": "Pisa"}, '{"a": {"b": "Pisa"}}'),
    "index": ({"input": "{{sample.output_json.towns[1]}}"}, {"answer": 5}, '{"towns": [null, 5]}'),
    "choices": ({"input": "{{sample.choices[0].message.content}}"}, {"answer": 5}, "5"),
    "cannot-be-turned-round": ({"input": "{{sample.output_text}}!"}, {"answer": "a"}, None),
    "twice": ({"input": "{{sample.output_text}}{{sample.output_text}}"}, {"answer": "a"}, None),
    "must-differ": ({"operation": "ne"}, {"answer": "a"}, None),
    "row-without-it": ({}, {}, None),
}


@pytest.mark.parametrize(("change", "item", "text"), RIGHT_ANSWERS.values(), ids=RIGHT_ANSWERS)
def test_the_right_answer_follows_from_the_templates(
    change: dict[str, Any], item: dict[str, Any], text: str | None
) -> None:
    found = reference_of(parse_grader({**EQ, **change}), item)
    assert (found.text if found else None) == text


def test_the_parts_of_a_multi_make_one_answer() -> None:
    graders = {
        "intent": {**EQ, "input": "{{sample.output_json.intent}}", "reference": "{{item.intent}}"},
        "slots": {**FIELDS, "input": "{{sample.output_json.slots}}", "reference": "{{item.slots}}"},
    }
    spec = parse_grader({"type": "multi", "calculate_output": "intent * slots", "graders": graders})
    found = reference_of(spec, {"intent": "fly", "slots": '{"to": "Pisa"}'})
    assert found is not None
    assert found.value == {"intent": "fly", "slots": {"to": "Pisa"}}
    assert build_grader(spec).grade(Sample(found.text), {"intent": "fly", "slots": {"to": "Pisa"}}).value == 1
    both = {"a": EQ, "b": {**EQ, "reference": "{{item.other}}"}}
    spec = parse_grader({"type": "multi", "calculate_output": "a + b", "graders": both})
    assert reference_of(spec, {"answer": "x", "other": "y"}) is None
    assert reference_of(spec, {"answer": "x", "other": "x"}) is not None


@pytest.mark.parametrize("raw", [EQ, ALIKE, FIELDS, {**EQ, "reference": "{{item.a.b[2].c}} x"}])
def test_made_up_rows_fit_their_grader(raw: dict[str, Any]) -> None:
    data = example_rows(parse_grader(raw))
    report = check(raw, data)
    assert {trial.value for trial in report.trials if trial.is_reference} == {1.0}


ODD = st.sampled_from(
    [None, True, 0, -1.5, "", "\x00", "ü" * 99, [], [None], [{"content": None}], [["x"]], {}, {"a": [{}]}]
)


@given(st.lists(st.dictionaries(st.sampled_from(["messages", "answer", "gold"]), ODD), max_size=4))
def test_no_data_makes_it_raise(data: list[dict[str, Any]]) -> None:
    for raw in (EQ, FIELDS):
        report = check(raw, data, bounds=Bounds(rows=2, probes=9))
        assert report.as_dict()["skipped"] == 0


@pytest.mark.parametrize("name", ["bbh-3x100", "sroie-receipts-200", "tinystories-prompts-19"])
def test_graders_of_the_shared_data_like_their_own_references(name: str) -> None:
    import json

    raw = json.loads(shared_path(f"data/{name}/grader.json").read_bytes())
    report = check(raw, shared_rows(f"data/{name}"))
    assert report.warnings == []
    assert {trial.value for trial in report.trials if trial.is_reference} == {1.0}
