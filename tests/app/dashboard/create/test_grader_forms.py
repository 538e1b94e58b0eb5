"""A grader's form and its JSON say the same, for every kind; what is typed is never lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.dashboard.create import builder, suggestions
from app.dashboard.create.fields import Field
from app.dashboard.create.kinds import KINDS
from app.dashboard.create.problems import OF_GRADER, placed
from app.errors import BadRequest
from graders import GraderInvalid, Sample, build_grader, parse_grader
from graders.spec import SUPPORTED
from tests.app.dashboard.create.posts import posted

OTHERS: dict[str, dict[str, Any]] = {
    "fields with every rule": {
        "type": "fields",
        "name": "all",
        "input": "{{sample.output_json}}",
        "reference": "{{item.reference}}",
        "fields": {
            "a b": {"compare": "exact", "weight": 0.5},
            "list": {"compare": "list", "items": {"compare": "fuzzy", "threshold": 0.5}, "score": "recall"},
            "when": {"compare": "date", "day_first": False, "formats": ["%d.%m.%Y"], "precision": "month"},
            "inner": {
                "compare": "object",
                "fields": {"x/y": {"compare": "normalized", "normalize": ["case"]}},
            },
        },
        "extra_keys": "ignore",
        "thoughts": ["<a>", "</a>"],
    },
    "judge with parameters": {
        "type": "score_model",
        "model": "judge",
        "sampling_params": {"temperature": 0.5, "reasoning_effort": "low"},
        "range": [-1, 1.5],
        "input": [
            {"role": "developer", "content": "Line one\nline two\n\n  indented"},
            {"role": "user", "content": [{"type": "input_text", "text": "{{sample.output_text}}"}]},
        ],
    },
    "math, in order": {
        "type": "math",
        "input": "{{sample.output_text}}",
        "reference": "{{item.answer}}",
        "extract": ["number", "boxed"],
        "strict": False,
        "decimals": 0,
    },
    "instructions with arguments": {
        "type": "instructions",
        "input": "{{sample.output_text}}",
        "instructions": [{"id": "keywords:word_once", "kwargs": {"keyword": "cat"}}],
    },
    "unknown keys": {
        "type": "string_check",
        "input": "a",
        "reference": "b",
        "operation": "eq",
        "surprise": {"deep": [1, None]},
    },
}


def test_every_kind_that_the_service_has_is_offered() -> None:
    assert set(KINDS) == set(SUPPORTED)


@pytest.mark.parametrize(
    "grader",
    [*(dict(kind.grader) for kind in KINDS.values()), *OTHERS.values()],
    ids=[*KINDS, *OTHERS],
)
def test_the_form_of_a_grader_posts_the_same_grader(grader: dict[str, Any]) -> None:
    edited = builder.of_value(grader)
    assert json.loads(edited.text) == grader
    assert builder.of_posted(posted(edited.form)).value == grader


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_asked_of_a_kind_has_a_sentence_of_help(kind: str) -> None:
    (whole,) = builder.of_value(dict(KINDS[kind].grader)).form.parts
    dumb = [part.label for part in (*whole.parts, *whole.more) if not part.help]
    assert not dumb
    assert whole.help.endswith(".")


RUN_HERE = [name for name, kind in KINDS.items() if not kind.needs and name not in ("python", "code_tests")]


@pytest.mark.parametrize("kind", RUN_HERE)
def test_the_example_of_a_kind_gets_a_score(kind: str) -> None:
    one = KINDS[kind]
    grade = build_grader(parse_grader(one.grader)).grade(Sample(one.sample), one.item)
    assert grade.value is not None, grade.failure
    assert grade.value > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_of_a_kind_is_a_right_grader(kind: str) -> None:
    assert parse_grader(KINDS[kind].grader).type == kind


def test_another_kind_keeps_the_texts_that_mean_the_same() -> None:
    value = {
        "type": "string_check",
        "name": "mine",
        "input": "{{sample.output_json.x}}",
        "reference": "{{item.y}}",
    }
    fields = [pair for pair in posted(builder.of_value(value).form) if pair[0] != "grader/?"]
    changed = builder.of_posted([*fields, ("grader/?", "text_similarity")], "kind").value
    assert changed["type"] == "text_similarity"
    assert {name: changed[name] for name in ("name", "input", "reference")} == {
        name: value[name] for name in ("name", "input", "reference")
    }


def test_buttons_add_and_remove_entries() -> None:
    multi = dict(KINDS["multi"].grader)
    fields = posted(builder.of_value(multi).form)
    added = builder.of_posted(fields, "add-entry grader/=/graders").value
    assert list(added["graders"]) == ["answer", "why", "part_3"]
    removed = builder.of_posted(posted(builder.of_value(added).form), "remove grader/=/graders/0").value
    assert list(removed["graders"]) == ["why", "part_3"]
    messages = posted(builder.of_value(dict(KINDS["score_model"].grader)).form)
    two = builder.of_posted(messages, "add-item grader/=/input").value["input"]
    assert [message["role"] for message in two] == ["user", "user"]


@pytest.mark.parametrize("action", ["remove", "add-item", "remove grader/=/nothing/9", "add-entry /", "x y"])
def test_a_button_of_nothing_changes_nothing(action: str) -> None:
    grader = dict(KINDS["math"].grader)
    assert builder.of_posted(posted(builder.of_value(grader).form), action).value == grader


def test_json_turns_into_the_form_and_back_and_a_fault_stays_where_it_was_typed() -> None:
    text = json.dumps(KINDS["multi"].grader)
    view = [("grader_view", "json"), ("grader_json", text)]
    form = builder.of_posted(view, "show form")
    assert (form.view, form.value) == ("form", KINDS["multi"].grader)
    back = builder.of_posted([("grader_view", "form"), *posted(form.form)], "show json")
    assert (back.view, json.loads(back.text)) == ("json", KINDS["multi"].grader)
    broken = builder.of_posted([("grader_view", "json"), ("grader_json", text[:-1])], "show form")
    assert (broken.view, broken.text) == ("json", text[:-1])
    assert broken.fault


def test_one_bare_grader_of_a_multi_is_shown_by_its_name() -> None:
    bare = {**KINDS["string_check"].grader, "name": "only"}
    value = {"type": "multi", "graders": bare, "calculate_output": "only"}
    edited = builder.of_value(value)
    assert edited.value["graders"] == {"only": bare}
    assert parse_grader(edited.value).type == "multi"


def places(field: Field) -> list[str]:
    return [field.path, *(path for part in (*field.parts, *field.more) for path in places(part))]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        pytest.param(
            {"graders": {"a": {"type": "string_check", "input": "x"}}}, "graders.a.operation", id="nested"
        ),
        pytest.param({"calculate_output": "answer +"}, "calculate_output", id="formula"),
        pytest.param({"surprise": 1}, "", id="no field for it"),
    ],
)
def test_a_fault_stands_at_the_field_that_it_is_about(change: dict[str, Any], path: str) -> None:
    form = builder.of_value({**KINDS["multi"].grader, **change}).form
    with pytest.raises(GraderInvalid) as caught:
        parse_grader({**KINDS["multi"].grader, **change})
    refusals = [BadRequest(one.message, param=f"{OF_GRADER}.{one.param}") for one in caught.value.all]
    assert f"grader {path}".strip() in {problem.place for problem in placed(refusals, form)}


@pytest.mark.parametrize(
    ("row", "kind", "reference"),
    [
        pytest.param({"messages": [], "answer": "Paris"}, "string_check", "{{item.answer}}", id="word"),
        pytest.param({"answer": "1,234"}, "math", "{{item.answer}}", id="number as text"),
        pytest.param({"note": "x", "target": 5}, "math", "{{item.target}}", id="number"),
        pytest.param({"reference_json": '{"a": 1}'}, "fields", "{{item.reference_json}}", id="JSON as text"),
        pytest.param({"answer": {"a": 1}}, "fields", "{{item.answer}}", id="object"),
    ],
)
def test_a_grader_is_suggested_that_fits_the_row(row: dict[str, Any], kind: str, reference: str) -> None:
    found = suggestions.for_row(row)
    assert (found["type"], found["reference"]) == (kind, reference)
    parse_grader(found)
