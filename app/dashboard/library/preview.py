"""Reads the beginning of a stored JSONL file, line by line, for a person to look at."""

from __future__ import annotations

import json
from typing import NamedTuple

from app.storage import Storage

MAX_BYTES = 256 * 1024
MAX_LINES = 20
MAX_SHOWN = 4000
"""Characters of a line that are shown."""


class Line(NamedTuple):
    """One line: its number from 1, its text, set out where it is JSON, and what is wrong with it."""

    number: int
    text: str
    problem: str | None


class Preview(NamedTuple):
    """The first lines, and whether there are more."""

    lines: list[Line]
    has_more: bool


def preview(storage: Storage, key: str) -> Preview:
    """Returns the first lines of a file. Raises `FileNotFoundError`."""
    read = b""
    for chunk in storage.open_stream(key):
        read += chunk
        if len(read) > MAX_BYTES:
            break
    is_cut = len(read) > MAX_BYTES
    whole = read[:MAX_BYTES].split(b"\n")
    if is_cut and len(whole) > 1:
        whole.pop()  # it is not whole
    lines = [_line(number, line) for number, line in enumerate(whole, 1) if line.strip()]
    return Preview(lines[:MAX_LINES], is_cut or len(lines) > MAX_LINES)


def _line(number: int, line: bytes) -> Line:
    text = line.decode("utf-8-sig", "replace")
    if "\ufffd" in text:
        return Line(number, _shown(text), f"Line {number} is not UTF-8.")
    try:
        value = json.loads(text)
    except ValueError as problem:
        return Line(number, _shown(text), f"Line {number} is not JSON: {problem}.")
    if not isinstance(value, dict):
        return Line(number, _shown(text), f"Line {number} is JSON, but not an object.")
    return Line(number, _shown(json.dumps(value, indent=2, ensure_ascii=False)), None)


def _shown(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} … ({len(text):,} characters)"
