"""Reads rows from JSONL, strictly: every fault is named with its line. No torch here.

Of a reinforcement job unless another check is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from graders.strict_json import StrictJsonError, loads
from methods.faults import MAX_REASONS, Fault, lines_in_words, told
from methods.file_kinds import kind_of_file
from methods.messages import RowInvalid, check_message, check_tools, kind_of

MAX_LINE_BYTES = 4 * 1024 * 1024
MAX_FILE_BYTES = 512 * 1024 * 1024
MAX_TRAIN_ROWS = 50_000
MAX_VALID_ROWS = 1_000

_CHUNK_BYTES = 64 * 1024
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Row:
    """One dataset row.

    Attributes:
        line: 1-based line number in the file, blank lines counted.
        item: the whole row, as graders see it.
        place: 0-based place among the file's rows, where it is one of a part of them; None in a whole file.
    """

    line: int
    item: Mapping[str, Any]
    place: int | None = None


class DatasetInvalid(ValueError):
    """The file cannot be used; the text says each different fault once, with its lines.

    Attributes:
        faults: those of the lines that were read, in their order.
    """

    def __init__(self, faults: Sequence[Fault], n_rows: int) -> None:
        """`n_rows` is how many rows were read."""
        super().__init__("\n".join(told(faults, n_rows)))
        self.faults = tuple(faults)


class Variable(Protocol):
    """A grader's template variable, such as `graders.template.Variable`."""

    def is_in(self, item: Mapping[str, Any]) -> bool:
        """Tells whether a dataset row has a value where the variable points."""


Check = Callable[[Any], None]
"""Raises `RowInvalid` for a row that the method cannot use."""


def read_rows(
    path: Path,
    *,
    check: Check | None = None,
    max_rows: int = MAX_TRAIN_ROWS,
    max_line_bytes: int = MAX_LINE_BYTES,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> list[Row]:
    """Reads and checks a whole file. Raises `DatasetInvalid`, or `OSError`.

    Reading stops at `MAX_REASONS` different faults.
    """
    if (other := kind_of_file(path)) is not None:
        raise DatasetInvalid([Fault(0, other)], 1)
    rows: list[Row] = []
    faults: list[Fault] = []
    reasons: set[str] = set()
    with path.open("rb") as file:
        for found in scan_rows(
            file,
            check=check,
            max_rows=max_rows,
            max_line_bytes=max_line_bytes,
            max_file_bytes=max_file_bytes,
        ):
            if isinstance(found, Row):
                rows.append(found)
                continue
            faults.append(found)
            reasons.add(found.reason)
            if len(reasons) == MAX_REASONS:
                break
    if not rows and not faults:
        faults.append(Fault(0, "the file has no rows"))
    if faults:
        raise DatasetInvalid(faults, len(rows) + len(faults))
    return rows


def scan_rows(
    file: BinaryIO,
    *,
    check: Check | None = None,
    max_rows: int = MAX_TRAIN_ROWS,
    max_line_bytes: int = MAX_LINE_BYTES,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> Iterator[Row | Fault]:
    """Stream a file: a `Row` or a `Fault` for each line that is not blank. Stops at a limit, with a fault."""
    n_rows = 0
    for line, raw in _lines(file, max_line_bytes, max_file_bytes):
        if isinstance(raw, str):
            yield Fault(line, raw)
            continue
        if not raw.strip(b" \t\r"):
            continue
        n_rows += 1
        if n_rows > max_rows:
            yield Fault(line, f"more than {max_rows:,} rows")
            return
        try:
            yield Row(line, _checked(raw.strip(b" \t\r"), check or check_row))
        except StrictJsonError as error:
            yield Fault(line, f"not valid JSON: {error.message}")
        except RowInvalid as error:
            yield Fault(line, str(error))


def missing_variables(
    rows: Sequence[Row], variables: Iterable[Variable], reader: str = "grader"
) -> Iterator[str]:
    """Yields a sentence for each variable of templates that rows lack, with their lines."""
    for variable in dict.fromkeys(variables):
        lines = [row.line for row in rows if not variable.is_in(row.item)]
        if lines:
            lack = f"{len(lines):,} of {len(rows):,} rows {'lack' if len(lines) > 1 else 'lacks'}"
            yield f"{lack} '{variable}', which the {reader} reads: {lines_in_words(lines)}"


def _lines(file: BinaryIO, max_line_bytes: int, max_file_bytes: int) -> Iterator[tuple[int, bytes | str]]:
    """Lines without their line feed, numbered from 1; a sentence (str) in place of one that is refused.

    Holds one line and one chunk at most, whatever the file: a long line is dropped as it is read.
    """
    too_long = f"longer than {max_line_bytes:,} bytes"
    line, held, is_too_long, n_bytes = 1, bytearray(), False, 0
    while chunk := file.read(_CHUNK_BYTES):
        if n_bytes == 0:
            chunk = chunk.removeprefix(_BOM)
        n_bytes += len(chunk)
        if n_bytes > max_file_bytes:
            yield line, f"the file is larger than {max_file_bytes:,} bytes"
            return
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            is_too_long = is_too_long or len(held) + len(piece) > max_line_bytes
            yield line, too_long if is_too_long else bytes(held) + piece
            line, is_too_long = line + 1, False
            held.clear()
        is_too_long = is_too_long or len(held) + len(rest) > max_line_bytes
        if is_too_long:
            held.clear()
        else:
            held += rest
    if held or is_too_long:
        yield line, too_long if is_too_long else bytes(held)


def _checked(raw: bytes, check: Check) -> dict[str, Any]:
    item = loads(raw)
    check(item)
    found: dict[str, Any] = item
    return found


def check_row(item: Any) -> None:
    """Raises `ValueError` with why it is no reinforcement row."""
    check_object(item)
    messages = item.get("messages")
    if messages is None:
        raise RowInvalid(f"'messages' is missing{_other_form(item)}")
    if not isinstance(messages, list) or not messages:
        raise RowInvalid("'messages' must be a list with at least one message")
    for i, message in enumerate(messages):
        check_message(message, f"messages[{i}]")
    if messages[-1]["role"] == "assistant":
        raise RowInvalid(
            "the last message is from the assistant, as in rows for the method 'supervised'; a reinforcement"
            " row ends with the user's message, and a reference answer goes in a field of its own"
        )
    if messages[-1]["role"] != "user":
        raise RowInvalid(f"the last message must be from the user, not '{messages[-1]['role']}'")
    check_tools(item.get("tools"))


def _other_form(item: Mapping[str, Any]) -> str:
    """Says of which other method a row without messages looks, if of any."""
    if "input" in item and "preferred_output" in item:
        return "; a row of 'input' and 'preferred_output' is for the method 'dpo'"
    if "prompt" in item:
        return '; \'prompt\' is of another form: write [{"role": "user", "content": ...}] as \'messages\''
    return ""


def check_object(item: Any) -> None:
    """Raises `RowInvalid` unless it is an object."""
    if not isinstance(item, dict):
        raise RowInvalid(f"a row is a JSON object, not {kind_of(item)}")
