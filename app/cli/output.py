"""Prints what commands have to say: tables for people, JSON for programs, one line for errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 1000
"""Columns where the output is no terminal: nothing wraps in a pipe."""

console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else WIDE)
errors = Console(stderr=True, highlight=False, emoji=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class CliError(Exception):
    """A command cannot do what it was asked; the message says why and what to do."""


def print_json(value: Any) -> None:
    """Prints JSON on one line of standard output, whatever the width of the terminal."""
    print(json.dumps(value, default=str), flush=True)


def tell(values: Mapping[str, Any], sentence: str, *, as_json: bool) -> None:
    """Says what was done: to a person as a sentence, to a program as JSON."""
    if as_json:
        print_json(values)
    else:
        console.print(sentence, markup=False, soft_wrap=True)


def print_table(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]], *, empty: str) -> None:
    """Prints rows under headings (key: heading), or `empty` if there are none."""
    if not rows:
        console.print(empty)
        return
    table = Table(box=None, pad_edge=False)
    for heading in columns.values():
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if row[key] is None else str(row[key])) for key in columns))
    console.print(table)


def when(seconds: int | None) -> str:
    """Writes a Unix time for people."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S") if seconds else ""
