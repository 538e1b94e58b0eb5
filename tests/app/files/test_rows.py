"""Single rows of stored files are those that trainings count, and reading one loads no file."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.files.rows import LONGEST_ROW, count_up_to, read_rows, row_on
from app.storage import LocalStorage
from methods.rows import Row, scan_rows


class Counting(LocalStorage):
    """Storage in small chunks, which counts the bytes that were asked of it."""

    def __init__(self, root: Path, chunk: int) -> None:
        super().__init__(root)
        self.chunk, self.n_bytes = chunk, 0

    def open_stream(self, key: str, start: int = 0) -> Iterator[bytes]:
        data = self._path(key).read_bytes()
        return self._pieces(data, start)

    def _pieces(self, data: bytes, start: int) -> Iterator[bytes]:
        for at in range(start, len(data), self.chunk):
            piece = data[at : at + self.chunk]
            self.n_bytes += len(piece)
            yield piece


def as_trained(data: bytes) -> dict[int, tuple[int, object]]:
    """The rows as a training counts them."""
    found = scan_rows(io.BytesIO(data), check=lambda _: None)
    return {i: (row.line, row.item) for i, row in enumerate(found) if isinstance(row, Row)}


CASES = [
    b'{"a": 1}\n{"a": 2}',
    b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n',
    b'\xef\xbb\xbf\n\n{"a": 1}\r\n \t\r\n{"a": 2}\n\n',
    b"\n" * 40,
    b'   {"a": "\xc3\xa9"}   \n' + b" " * 20 + b"\n" + b'{"b": []}',
    b"",
]


@pytest.mark.parametrize("chunk", [3, 7, 1000])
@pytest.mark.parametrize("data", CASES, ids=range(len(CASES)))
def test_rows_are_those_that_a_training_counts(tmp_path: Path, data: bytes, chunk: int) -> None:
    storage, key = Counting(tmp_path, chunk), f"files/case-{CASES.index(data)}-{chunk}"
    storage.put_bytes(key, data)
    wanted = as_trained(data)
    assert count_up_to(storage, key, 100) == len(wanted)
    for order in (sorted(wanted), sorted(wanted, reverse=True)):
        for row in order:
            found = read_rows(storage, key, [row])[row]
            assert (found.line, found.item) == wanted[row]
        assert [row_on(storage, key, wanted[row][0]) for row in order] == order
    assert read_rows(storage, key, [len(wanted), 10**6]) == {}
    blank = set(range(1, 50)) - {line for line, _ in wanted.values()}
    assert {row_on(storage, key, line) for line in blank} == {None}


def test_rows_in_any_order_are_the_same(tmp_path: Path) -> None:
    numbers = random.Random(5)
    lines = [json.dumps({"i": i, "x": "y" * numbers.randrange(200)}) for i in range(300)]
    data = "\n".join(line + "\n" * numbers.randrange(2) for line in lines).encode()
    storage = Counting(tmp_path, 64)
    storage.put_bytes("files/any-order", data)
    order = numbers.sample(range(300), 300)
    found = {row: read_rows(storage, "files/any-order", [row])[row] for row in order}
    assert {row: (one.line, one.item) for row, one in found.items()} == as_trained(data)


def test_a_row_that_was_found_before_is_read_alone(tmp_path: Path) -> None:
    storage = Counting(tmp_path, 1000)
    storage.put_bytes(
        "files/large", b"".join(b'{"i": %d, "x": "%s"}\n' % (i, b"y" * 500) for i in range(4000))
    )
    read_rows(storage, "files/large", [3000])
    assert storage.n_bytes < 1.7e6  # not the last quarter
    before = storage.n_bytes
    assert read_rows(storage, "files/large", [5, 2999])[2999].item == {"i": 2999, "x": "y" * 500}
    assert storage.n_bytes - before <= 2 * 1000


def test_of_a_row_that_is_too_long_only_the_beginning_is_read(tmp_path: Path) -> None:
    storage = Counting(tmp_path, 1 << 16)
    storage.put_bytes("files/long", b'{"a": 1}\n{"x": "' + b"y" * 3 * LONGEST_ROW + b'"}\n{"a": 3}\n')
    assert count_up_to(storage, "files/long", 10) == 3
    before = storage.n_bytes
    long = read_rows(storage, "files/long", [1])[1]
    assert long.item is None
    assert long.size == 3 * LONGEST_ROW + 9
    assert len(long.start) == LONGEST_ROW
    assert storage.n_bytes - before <= LONGEST_ROW + (1 << 16)


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_rows(LocalStorage(tmp_path), "files/gone", [0])
