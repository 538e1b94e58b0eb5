"""Reads answers that people have scored: JSONL or CSV, with every fault named by its line."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from methods.faults import MAX_REASONS, Fault
from methods.messages import RowInvalid
from methods.rows import DatasetInvalid, Row, check_object, read_rows

SCORE, SAMPLE, ANSWER, ID = "score", "sample", "answer", "id"
ROWS_SUFFIX = ".rows.jsonl"
"""What is added to a sheet's name for the file beside it, which holds the rows that people need not see."""
WORDS = {"pass": 1.0, "fail": 0.0, "true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
"""Scores that people write in words."""


class Label(NamedTuple):
    """Holds an answer to a row and the score that a person gave it.

    Attributes:
        line: of the file, from 1.
        item: the row as graders see it, without the answer and its score.
        is_word: whether the score was given in words, such as pass.
    """

    line: int
    item: Mapping[str, Any]
    answer: str
    score: float
    is_word: bool = False


def rows_beside(sheet: Path) -> Path:
    """Returns where the rows of a sheet lie."""
    return sheet.with_name(sheet.name + ROWS_SUFFIX)


def read_labels(path: Path) -> list[Label]:
    """Reads a file of scored answers; rows without a score are left out.

    A row has the keys that a grader reads, the answer as `sample` (or as `answer`, where it has no `sample`),
    and `score`: a number, or pass or fail. A file that ends in `.csv` may be a sheet that was filled in,
    whose rows lie in the file beside it. Raises `DatasetInvalid`, or `OSError`.
    """
    labels = _read_csv(path) if path.suffix.lower() == ".csv" else _read_jsonl(path)
    if not labels:
        raise DatasetInvalid([Fault(0, "no row has a score")], 1)
    _check_one_kind(labels)
    return labels


def _check_one_kind(labels: Sequence[Label]) -> None:
    """Checks that words do not stand among numbers of another scale, where pass, 1, may be the worst.

    Raises `DatasetInvalid`.
    """
    numbers = [label.score for label in labels if not label.is_word]
    if set(numbers) <= set(WORDS.values()):
        return
    said = f"'{SCORE}' is a word here and a number ({numbers[0]:g}) elsewhere: write all in one way"
    if faults := [Fault(label.line, said) for label in labels if label.is_word]:
        raise DatasetInvalid(faults, len(labels))


def _read_jsonl(path: Path) -> list[Label]:
    return [_label(row.line, row.item) for row in read_rows(path, check=_check) if _is_scored(row.item)]


def _check(item: Any) -> None:
    check_object(item)
    if not isinstance(answer := item.get(_answer_key(item)), str):
        what = "is missing" if answer is None else "must be a text"
        raise RowInvalid(f"the answer that was scored, '{SAMPLE}' (or '{ANSWER}'), {what}")
    if _is_scored(item):
        _score(item[SCORE])


def _is_scored(item: Mapping[str, Any]) -> bool:
    score = item.get(SCORE)
    return bool(score.strip()) if isinstance(score, str) else score is not None


def _answer_key(item: Mapping[str, Any]) -> str:
    return SAMPLE if SAMPLE in item else ANSWER


def _label(line: int, item: Mapping[str, Any]) -> Label:
    key = _answer_key(item)
    rest = {name: value for name, value in item.items() if name not in (key, SCORE)}
    return Label(line, rest, item[key], _score(item[SCORE]), _is_word(item[SCORE]))


def _is_word(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in WORDS)


def _score(value: Any) -> float:
    """Returns a score as a number. Raises `RowInvalid`."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        text = value.strip().lower().replace(",", ".")
        try:
            value = WORDS[text] if text in WORDS else float(text)
        except ValueError:
            raise RowInvalid(f"'{SCORE}' must be a number, or pass or fail, not '{value[:40]}'") from None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise RowInvalid(f"'{SCORE}' must be a number, or pass or fail")
    return float(value)


def _read_csv(path: Path) -> list[Label]:
    known = _known_rows(path)
    labels, faults, seen = [], [], set[str]()
    n_rows = 0
    for line, found in _records(path):
        n_rows += 1
        try:
            item = _whole(found, known, seen)
            if _is_scored(item):
                _check(item)
                labels.append(_label(line, item))
        except RowInvalid as fault:
            faults.append(Fault(line, str(fault)))
        if len({fault.reason for fault in faults}) == MAX_REASONS:
            break
    if faults:
        raise DatasetInvalid(faults, n_rows)
    return labels


def _known_rows(path: Path) -> dict[str, Row] | None:
    """Returns the rows that lie beside a sheet, by their ids; None where there is no such file."""
    beside = rows_beside(path)
    if not beside.exists():
        return None
    return {str(row.item[ID]): row for row in read_rows(beside, check=check_object)}


def _whole(found: dict[str, str], known: Mapping[str, Row] | None, seen: set[str]) -> dict[str, Any]:
    """Returns a record with what the rows beside the sheet hold of it: the row, and the answer as it was
    written.

    Raises `RowInvalid` for an id that is not there, or that stands there twice.
    """
    if known is None:
        return dict(found)
    name = found.get(ID, "").strip()
    if name not in known:
        raise RowInvalid(f"the rows beside the sheet have no '{ID}' '{name[:40]}'")
    if name in seen:
        raise RowInvalid(f"the '{ID}' '{name}' stands there twice")
    seen.add(name)
    row = known[name].item
    return {**row["item"], SAMPLE: row[ANSWER], SCORE: found.get(SCORE, "").strip()}


def _records(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the records of a CSV file with the lines that they begin on. Raises `DatasetInvalid`."""
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise DatasetInvalid([Fault(0, "the file is no UTF-8: save it as CSV UTF-8")], 1) from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)  # spreadsheets of some languages write semicolons
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names = [name.strip() for name in next(reader, [])]
    if SCORE not in names:
        raise DatasetInvalid([Fault(1, f"there is no column '{SCORE}'")], 1)
    line = reader.line_num + 1
    try:
        for cells in reader:
            if any(cells):
                yield line, dict(zip(names, cells, strict=False))
            line = reader.line_num + 1
    except csv.Error as fault:
        raise DatasetInvalid([Fault(line, f"it is no CSV: {fault}")], 1) from None
