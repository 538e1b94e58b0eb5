"""Answers of several models at once, a column each, while they come."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing

from openai import APIError
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app.cli.talk import Talk, safe_in_terminal

REFRESHES = 15
"""Of the columns, a second: about as often as chunks come. Chosen, not measured."""
HEADING_LINES = 3
"""Lines of a terminal that the columns leave: a heading, and one each above and below."""


class Column:
    """Asks one model in a thread of its own, and holds what it has said so far."""

    def __init__(self, talk: Talk, question: str) -> None:
        self.talk = talk
        self.fault: APIError | None = None
        self.text = ""
        self.is_over = threading.Event()
        self._is_stopped = threading.Event()
        self._question = question

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Breaks the answer off with its next piece, and shows nothing of it any more."""
        self._is_stopped.set()

    def _run(self) -> None:
        try:
            with closing(self.talk.ask(self._question)) as pieces:
                for piece in pieces:
                    if self._is_stopped.is_set():
                        return
                    self.text += "" if piece.is_thought else safe_in_terminal(piece.text)
        except APIError as fault:
            self.fault = fault
        finally:
            self.is_over.set()

    def shown(self) -> str:
        """Returns the text, and the fault behind it if there was one."""
        return self.text if self.fault is None else f"{self.text}\n[{self.fault.message}]".lstrip()


def answer_side_by_side(talks: Sequence[Talk], question: str, console: Console) -> bool:
    """Shows the answers as they come. Returns whether all came to their end; Ctrl-C breaks them off."""
    columns = [Column(talk, question) for talk in talks]
    for column in columns:
        column.start()
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while not all(column.is_over.wait(1 / REFRESHES / len(columns)) for column in columns):
                live.update(_newest(columns, console), refresh=True)
    except KeyboardInterrupt:
        for column in columns:
            column.stop()
        console.print(_table(columns, [Text(column.shown()) for column in columns]))
        return False
    console.print(_table(columns, [Text(column.shown()) for column in columns]))
    return True


def _newest(columns: Sequence[Column], console: Console) -> Table:
    """Returns as many of the newest lines as a terminal has."""
    width = max(1, console.width // len(columns) - 2)
    most = max(1, console.height - HEADING_LINES)
    return _table(columns, [Group(*Text(column.shown()).wrap(console, width)[-most:]) for column in columns])


def _table(columns: Sequence[Column], texts: Sequence[Text | Group]) -> Table:
    table = Table(box=None, expand=True, pad_edge=False)
    for column in columns:
        table.add_column(Text(column.talk.model), ratio=1, overflow="fold")
    table.add_row(*texts)
    return table
