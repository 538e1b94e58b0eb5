"""Rows and graders of the recipes (docs/recipes.md)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.recipes import rows
from graders import Sample, build_grader, parse_grader

HERE = Path(rows.__file__).parent


def grader(name: str) -> object:
    return build_grader(parse_grader(json.loads((HERE / f"{name}.grader.json").read_text("utf-8"))))


def test_sums_are_the_same_each_time_and_none_is_in_both_files() -> None:
    made = rows.sums()
    assert made == rows.sums()
    prompts = {split: {row["messages"][0]["content"] for row in made[split]} for split in made}
    assert {split: len(found) for split, found in prompts.items()} == rows.COUNTS
    assert not prompts["train"] & prompts["valid"]


@pytest.mark.parametrize(
    ("answer", "value"),
    [("57", 1.0), ("16 + 41 = 57.", 0.7), ("16 + 41", 0.0), ("56", 0.0), ("57 or 58", 0.0), ("", 0.0)],
)
def test_a_sum_is_paid_when_it_is_written_down(answer: str, value: float) -> None:
    grade = grader("sums").grade(Sample(answer), {"answer": "57"})  # type: ignore[attr-defined]
    assert grade.value == pytest.approx(value)


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """A benchmark of made-up sentences in the form of the real one."""
    for intent in rows.INTENTS:
        folder = tmp_path / rows.FOLDER_OF_INTENTS / intent
        folder.mkdir(parents=True)
        for name in (f"train_{intent}_full.json", f"validate_{intent}.json"):
            data = [
                {"data": [{"text": f"{name} {n} for "}, {"text": "six", "entity": "party_size_number"}]}
                for n in range(70)
            ]
            twice = {"data": [{"text": "a", "entity": "city"}, {"text": "b", "entity": "city"}]}
            (folder / name).write_text(json.dumps({intent: [*data, twice]}))
    return tmp_path


def test_slots_that_a_request_does_not_name_are_not_in_its_reference(benchmark: Path) -> None:
    made = rows.slots(benchmark)
    for row in made["train"] + made["valid"]:
        assert row["reference"] == {"people": "six"}
        answer = json.dumps(row["reference"])
        assert grader("slots").grade(Sample(answer), row).value == 1.0  # type: ignore[attr-defined]


def test_naming_no_slot_is_paid_nothing_and_naming_all_is_paid_less() -> None:
    row = {"reference": {"people": "six", "city": "Rome"}}
    values = [
        grader("slots").grade(Sample(json.dumps(answer)), row).value  # type: ignore[attr-defined]
        for answer in ({}, {"people": "six"}, {"people": "six", "city": "rome", "time": "x", "place": "y"})
    ]
    assert values == [0.0, 0.5, 0.5]


def test_intents_are_of_all_kinds_and_in_the_format_of_answers(benchmark: Path) -> None:
    made = rows.intents(benchmark)
    words = {row["intent"] for row in made["train"]}
    allowed = json.loads((HERE / "intents.format.json").read_text("utf-8"))["json_schema"]["schema"]
    assert words == set(allowed["properties"]["intent"]["enum"])
    assert {split: len(found) for split, found in made.items()} == rows.COUNTS
