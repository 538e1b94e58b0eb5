"""Answers that people have scored: read from JSONL, from CSV, and from a sheet that comes back."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from graders.calibration.verdict import ENOUGH_LABELS
from graders.spec import has_path, item_paths, parse_grader
from methods.labels.reading import Label, read_labels, rows_beside
from methods.labels.sheets import Entry, chosen, write_sheet
from methods.rows import DatasetInvalid

ROW = {"messages": [{"role": "user", "content": "Why?"}]}
EXAMPLE = Path(__file__).parents[2] / "examples" / "judge"
NASTY = ['=cmd|"/C calc"!A0', "-1", "@x", "two\nlines", 'a "quoted", text', "ünïcode 🐕", "plain"]


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_keep_what_graders_read_and_lose_answer_and_score(tmp_path: Path) -> None:
    path = written(
        tmp_path / "labels.jsonl",
        [
            {**ROW, "answer": "said", "score": 4, "level": 2},
            {**ROW, "answer": "the right one", "sample": "said", "score": "4,5"},
            {**ROW, "answer": "nobody has looked", "score": None},
            {**ROW, "answer": "nobody has looked", "score": "  "},
            {**ROW, "answer": "said", "score": "3"},
        ],
    )
    assert read_labels(path) == [
        Label(1, {**ROW, "level": 2}, "said", 4.0),
        Label(2, {**ROW, "answer": "the right one"}, "said", 4.5),
        Label(5, ROW, "said", 3.0),
    ]


def test_words_are_scores_of_their_own_or_stand_for_1_and_0(tmp_path: Path) -> None:
    rows = [{"answer": "a", "score": score} for score in ("Pass", " fail", True, 1, "0")]
    read = read_labels(written(tmp_path / "labels.jsonl", rows))
    assert [label.score for label in read] == [1.0, 0.0, 1.0, 1.0, 0.0]


def test_words_among_numbers_of_another_scale_are_named_by_their_lines(tmp_path: Path) -> None:
    rows = [{"answer": "a", "score": score} for score in (4, "pass", 1, False)]
    with pytest.raises(DatasetInvalid, match=r"a word here and a number \(4\) elsewhere") as found:
        read_labels(written(tmp_path / "labels.jsonl", rows))
    assert [fault.line for fault in found.value.faults] == [2, 4]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"score": 1}, "is missing"),
        ({"answer": 3, "score": 1}, "must be a text"),
        ({"answer": "a", "score": "good"}, "not 'good'"),
        ({"answer": "a", "score": [1]}, "must be a number"),
        ({"answer": "a"}, "no row has a score"),
    ],
)
def test_a_faulty_row_is_named_by_its_line(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    path = written(tmp_path / "labels.jsonl", [row])
    with pytest.raises(DatasetInvalid, match=said) as found:
        read_labels(path)
    if "score" in row:
        assert found.value.faults[0].line == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_out_of_a_spreadsheet_is_read(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "labels.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=delimiter).writerows(
            [["topic", "answer", "score"], ["dogs", "one\ntwo", "3"], ["cats", "", " "], ["cats", "x", "1"]]
        )
    assert read_labels(path) == [
        Label(2, {"topic": "dogs"}, "one\ntwo", 3.0),
        Label(5, {"topic": "cats"}, "x", 1.0),
    ]


def filled_in(path: Path, score_of: Any) -> None:
    """Does what a person does in a spreadsheet."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "score": score_of(row)} for row in rows)


def test_a_sheet_comes_back_with_rows_and_answers_as_they_were(tmp_path: Path) -> None:
    entries = [Entry({**ROW, "n": n}, answer, score=n / 10) for n, answer in enumerate(NASTY)]
    path = tmp_path / "sheet.csv"
    write_sheet(path, chosen(entries, 50, seed=1))
    with path.open(newline="", encoding="utf-8-sig") as file:
        cells = list(csv.DictReader(file))
    assert {row["score"] for row in cells} == {""}
    assert not [row for row in cells if row["answer"][:1] in ("=", "-", "@")]
    filled_in(path, lambda row: len(row["answer"]))
    read = read_labels(path)
    assert {(label.item["n"], label.answer) for label in read} == set(enumerate(NASTY))


def test_ids_that_are_wrong_are_named_by_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    write_sheet(path, [Entry(ROW, "a"), Entry(ROW, "b")])
    [first, _] = [entry.id for entry in (Entry(ROW, "a"), Entry(ROW, "b"))]
    path.write_text(f"id,score\n{first},1\n{first},2\nnobody,3\n")
    with pytest.raises(DatasetInvalid) as found:
        read_labels(path)
    assert [fault.line for fault in found.value.faults] == [3, 4]
    assert rows_beside(path).exists()


def test_a_sheet_has_rare_scores_too_in_an_order_that_tells_nothing() -> None:
    entries = [Entry(ROW, f"common {n}", 0.5) for n in range(200)]
    entries += [Entry(ROW, f"rare {n}", 1.0 if n % 2 else 0.0) for n in range(6)]
    taken = chosen(entries, 20, seed=3)
    assert len(taken) == 20
    assert sum("rare" in entry.answer for entry in taken) == 6
    scores = [entry.score or 0.0 for entry in taken]
    assert scores != sorted(scores)
    assert chosen(entries, 20, seed=3) == taken
    assert chosen(entries, 20, seed=4) != taken


def test_the_example_has_labels_enough_and_a_grader_that_reads_them() -> None:
    labels = read_labels(EXAMPLE / "labels.jsonl")
    grader = parse_grader(json.loads((EXAMPLE / "grader.json").read_text()))
    assert len(labels) >= ENOUGH_LABELS
    assert all(has_path(dict(label.item), path) for _, path in item_paths(grader) for label in labels)
