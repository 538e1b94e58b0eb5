"""Reads single rows of stored JSONL files, of whatever size: a file is scanned once, and where its rows begin
is kept.

What counts as a row is what `methods.rows` counts: every line that is not blank.
"""

from __future__ import annotations

import json
import threading
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

from app.storage import Storage

FILES_KNOWN = 16
"""Files of which a process remembers where rows begin: 12 bytes a row, and files have at most 50,000."""
LONGEST_ROW = 256 * 1024
"""Bytes of a row that are read; of a longer one only the beginning is."""

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r"


class StoredRow(NamedTuple):
    """A row of a file.

    Attributes:
        line: 1-based line of the file.
        size: how many bytes it has.
        item: the row; None where it is longer than `LONGEST_ROW`, or is no JSON object.
        start: the beginning of its text, where there is no `item`.
    """

    line: int
    size: int
    item: Mapping[str, Any] | None
    start: str = ""


class RowIndex:
    """Knows where the rows of one file begin, as far as anybody has asked. It is safe to share between
    threads."""

    def __init__(self) -> None:
        self._starts = array("Q")
        self._sizes = array("L")
        self._lines = array("L")
        self._scanned = 0
        """Where the first line begins that was not looked at."""
        self._line = 0
        self._is_whole = False
        self._lock = threading.Lock()

    def extend(self, storage: Storage, key: str, n_rows: int) -> int:
        """Scans on until that many rows are known, or the file ends. Returns how many are known.

        Raises `FileNotFoundError`.
        """
        with self._lock:
            if len(self._starts) < n_rows and not self._is_whole:
                self._scan(storage, key, n_rows)
            return len(self._starts)

    def place(self, row: int) -> tuple[int, int, int]:
        """Returns where a known row begins, its size in bytes, and its 1-based line."""
        return self._starts[row], self._sizes[row], self._lines[row]

    def row_at(self, line: int) -> int | None:
        """Returns the row that stands on a 1-based line; None for a line that is blank, or not known yet."""
        at = bisect_left(self._lines, line)
        return at if at < len(self._lines) and self._lines[at] == line else None

    def _scan(self, storage: Storage, key: str, n_rows: int) -> None:
        begins = position = self._scanned
        is_blank = True
        with closing(_closable(storage.open_stream(key, begins))) as chunks:
            for chunk in chunks:
                if position == 0:
                    begins = len(_BOM) if chunk.startswith(_BOM) else 0
                at = begins - position if begins > position else 0
                while (end := chunk.find(b"\n", at)) >= 0:
                    is_blank = is_blank and not chunk[at:end].strip(_BLANK)
                    self._add(begins, position + end, is_blank=is_blank)
                    at, is_blank = end + 1, True
                    begins = self._scanned = position + at
                    if len(self._starts) >= n_rows:
                        return
                is_blank = is_blank and not chunk[at:].strip(_BLANK)
                position += len(chunk)
        if position > begins:
            self._add(begins, position, is_blank=is_blank)
        self._is_whole = True

    def _add(self, begins: int, ends: int, *, is_blank: bool) -> None:
        self._line += 1
        if not is_blank:
            self._starts.append(begins)
            self._sizes.append(ends - begins)
            self._lines.append(self._line)


class KnownFiles:
    """The indexes of the files that were read last. What lies under a key never changes."""

    def __init__(self, most: int = FILES_KNOWN) -> None:
        self._most = most
        self._indexes: OrderedDict[str, RowIndex] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, key: str) -> RowIndex:
        """Returns the index of a file, which may be empty yet."""
        with self._lock:
            found = self._indexes.pop(key, None) or RowIndex()
            self._indexes[key] = found
            while len(self._indexes) > self._most:
                self._indexes.popitem(last=False)
            return found


_known = KnownFiles()


def count_up_to(storage: Storage, key: str, most: int) -> int:
    """Counts a file's rows, up to `most`. Raises `FileNotFoundError`."""
    return min(most, _known.of(key).extend(storage, key, most))


def row_on(storage: Storage, key: str, line: int) -> int | None:
    """Returns the 0-based row on a 1-based line; None where no row is. Raises `FileNotFoundError`."""
    index = _known.of(key)
    index.extend(storage, key, line)
    return index.row_at(line)


def read_rows(storage: Storage, key: str, numbers: Collection[int]) -> dict[int, StoredRow]:
    """Returns rows of a file by their 0-based numbers, without those that it does not have.

    Raises `FileNotFoundError`.
    """
    if not numbers:
        return {}
    index = _known.of(key)
    n_rows = index.extend(storage, key, max(numbers) + 1)
    return {row: _read(storage, key, *index.place(row)) for row in sorted(numbers) if 0 <= row < n_rows}


def _read(storage: Storage, key: str, start: int, size: int, line: int) -> StoredRow:
    wanted, data = min(size, LONGEST_ROW), bytearray()
    with closing(_closable(storage.open_stream(key, start))) as chunks:
        for chunk in chunks:
            data += chunk[: wanted - len(data)]
            if len(data) >= wanted:
                break
    text = data.decode("utf-8", "replace")
    if size <= LONGEST_ROW:
        try:
            item = json.loads(text)
        except (ValueError, RecursionError):
            item = None
        if isinstance(item, dict):
            return StoredRow(line, size, item)
    return StoredRow(line, size, None, text)


def _closable(chunks: Iterator[bytes]) -> Generator[bytes]:
    """Yields the same, as something that can be closed: a store's own stream may not be."""
    yield from chunks
