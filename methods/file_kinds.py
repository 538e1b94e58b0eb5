"""Tells what a file is that was meant to be JSONL and is none: a table, one JSON value, an archive."""

from __future__ import annotations

import re
from pathlib import Path

from graders.strict_json import StrictJsonError, loads

LOOKED_AT = 64 * 1024
"""Bytes of a file that are looked at: the longest heading of a table is shorter."""
MAX_SHOWN = 60
"""Characters of a first line that a message shows."""

JSONL = "a data file is JSONL: one JSON object on each line"
BINARY = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"%PDF": "a PDF document",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
"""What a file is by its first bytes."""
SEPARATORS = {",": "CSV", ";": "CSV", "\t": "tab-separated"}
_KEY = re.compile(r'"[^"]*"\s*:')


def kind_of_file(path: Path) -> str | None:
    """Returns what is wrong with the file as a whole. None: its first line is JSON, or plain nonsense."""
    with path.open("rb") as file:
        return whole_fault(file.read(LOOKED_AT))


def whole_fault(head: bytes) -> str | None:
    """Returns the same of a file that begins with these bytes, `LOOKED_AT` at most."""
    for start, what in BINARY.items():
        if head.startswith(start):
            return f"the file is {what}; {JSONL}"
    first, second = [*head.removeprefix(b"\xef\xbb\xbf").strip().split(b"\n"), b""][:2]
    if not first or _is_json(first.strip()):
        return None
    of_json = _of_json(first.decode("utf-8", "replace").strip(), second.decode("utf-8", "replace").strip())
    if of_json is not None or _is_json(second.strip()):  # then only the first line is wrong
        return of_json
    return _of_table(first.decode("utf-8", "replace").strip())


def _of_json(first: str, second: str) -> str | None:
    if (first == "{" and _KEY.match(second)) or (
        first[0] == "{" and _KEY.search(first) and first[-1] in "{[,"
    ):
        return f"a row is spread over several lines; {JSONL}"
    if first[0] == "[":
        return f"the file is one JSON array; {JSONL}, without brackets around them or commas between them"
    return None


def _of_table(first: str) -> str | None:
    if first[0] in "{<" or _KEY.match(first):  # a row with a fault, or a page
        return None
    for separator, kind in SEPARATORS.items():
        if separator in first:
            shown = first if len(first) <= MAX_SHOWN else first[:MAX_SHOWN] + "..."
            return f"the file looks like {kind} (its first line is {shown!r}); {JSONL}"
    return None


def _is_json(line: bytes) -> bool:
    try:
        value = loads(line)
    except StrictJsonError:
        return False
    return not isinstance(value, list)
