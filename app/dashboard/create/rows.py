"""Looks at a file before a job does: its first rows, and which lines a method could not use."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from app.storage import STORAGE_FAULTS, get_storage
from graders.strict_json import StrictJsonError, loads
from methods.faults import Fault
from methods.file_kinds import LOOKED_AT, whole_fault
from methods.rows import Row, scan_rows
from methods.tuning_rows import row_check, too_few

MOST_BYTES = 16 * 2**20
"""Of a larger file only so much is looked at here; the job reads all of it. Chosen, not measured."""
MOST_SHOWN = 32 * 1024
"""Bytes of a row that is shown. Chosen: three of them and answers to them fit the body of a request."""
PREVIEW, MOST_FAULTS = 3, 20
CELL, SAID = 400, 60
"""Characters of a cell, and of a line with a fault, that are shown; and of one of several messages."""


class Wrong(NamedTuple):
    """A line that cannot be used: its number from 1 (0 is the whole file), why, and what stands there."""

    line: int
    reason: str
    text: str


class Look(NamedTuple):
    """What was seen of a file.

    Attributes:
        rows: the first ones that are right.
        n_rows: of all that were looked at, right or wrong.
        wrong: the first lines that cannot be used.
        n_wrong: how many there are.
        is_whole: everything was looked at.
        longest: bytes of the longest line.
    """

    rows: Sequence[Row]
    n_rows: int
    wrong: Sequence[Wrong]
    n_wrong: int
    is_whole: bool
    longest: int

    @property
    def columns(self) -> list[str]:
        """Returns the keys of the rows that are shown."""
        return list(dict.fromkeys(key for row in self.rows for key in row.item))

    def cells(self) -> Iterator[tuple[int, list[str]]]:
        """Yields the line and the cells of each row that is shown."""
        for row in self.rows[:PREVIEW]:
            yield row.line, [cell(row.item.get(name)) for name in self.columns]


def look(storage_key: str, size: int, method: str, *, is_training: bool = True) -> Look:
    """Looks at a stored file as a method reads it. A file never changes, so that it is looked at once."""
    return _look(storage_key, size, method, is_training)


@lru_cache(maxsize=256)
def _look(storage_key: str, size: int, method: str, is_training: bool) -> Look:
    try:
        data = _beginning(storage_key)
    except STORAGE_FAULTS as problem:
        return Look([], 0, [Wrong(0, f"the file cannot be read: {problem}", "")], 1, True, 0)
    if (other := whole_fault(data[:LOOKED_AT])) is not None:
        return Look([], 0, [Wrong(0, other, "")], 1, True, 0)
    is_whole = len(data) >= size
    if not is_whole:
        data = data[: data.rfind(b"\n") + 1]
    lines = data.split(b"\n")
    rows: list[Row] = []
    wrong: list[Wrong] = []
    n_rows = n_wrong = 0
    for found in scan_rows(io.BytesIO(data), check=row_check(method)):
        n_rows += 1
        if isinstance(found, Row):
            is_shown = len(rows) < PREVIEW and len(lines[found.line - 1]) <= MOST_SHOWN
            rows += [found] if is_shown else []
            continue
        n_wrong += 1
        if len(wrong) < MOST_FAULTS:
            wrong.append(_wrong(found, lines))
    lacks = too_few(method, n_rows) if is_training and is_whole else None
    if lacks or not n_rows:
        wrong.insert(0, Wrong(0, lacks or "the file has no rows", ""))
        n_wrong += 1
    return Look(rows, n_rows, wrong, n_wrong, is_whole, max(map(len, lines)))


def _beginning(storage_key: str) -> bytes:
    found = bytearray()
    for chunk in get_storage().open_stream(storage_key):
        found += chunk
        if len(found) >= MOST_BYTES:
            break
    return bytes(found)


def _wrong(fault: Fault, lines: Sequence[bytes]) -> Wrong:
    raw = lines[fault.line - 1] if 0 < fault.line <= len(lines) else b""
    return Wrong(fault.line, fault.reason, shortened(raw.decode("utf-8", "replace")))


def cell(value: Any) -> str:
    """Returns a value of a row as a table shows it; messages as who says what."""
    if value is None:
        return ""
    if isinstance(value, str):
        return shortened(value)
    if _are_messages(value):
        said = (f"{one['role']}: {shortened(as_said(one.get('content')), SAID)}" for one in value)
        return shortened("\n".join(said))
    return shortened(json.dumps(value, ensure_ascii=False))


def as_said(content: Any) -> str:
    """Returns the content of a message as text."""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def shortened(text: str, most: int = CELL) -> str:
    """Returns a text that is no longer than a cell, or than so many characters."""
    return text if len(text) <= most else text[:most] + " …"


def _are_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, Mapping) and "role" in one for one in value)
    )


def row_at(storage_key: str, line: int) -> Mapping[str, Any] | None:
    """Returns the row at a line of a file, from 1, as far as files are looked at here; None where there is no
    object."""
    try:
        lines = _beginning(storage_key).split(b"\n")
    except STORAGE_FAULTS:
        return None
    try:
        found = loads(lines[line - 1].strip()) if line <= len(lines) else None
    except StrictJsonError:
        return None
    return found if isinstance(found, dict) else None
