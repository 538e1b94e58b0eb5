"""The table of counts as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """Is a line of the table."""

    what: str
    before: str
    now: str
    bar: str


def printed(rows: Sequence[Row]) -> str:
    """Returns the rows as a table of Markdown."""
    lines = [Row("what", "before", "now", "bar"), Row(*("---",) * 4), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)
