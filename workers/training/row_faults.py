"""Gathers what keeps the rows of a file from being trained on: its owner is told all of it at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from methods.faults import lines_in_words
from methods.rows import Row
from workers.training.base.errors import OutOfContext, PromptInvalid


class RowFaults:
    """The faults of one file's rows. `name` ("training", "validation") is what errors call the file."""

    def __init__(self, name: str, n_rows: int) -> None:
        self._name = name
        self._n_rows = n_rows
        self._refused: dict[str, list[int]] = {}
        self._empty: dict[str, list[int]] = {}
        self._too_long: dict[int, int] = {}

    def refused(self, row: Row, error: Exception) -> None:
        """The chat template raised an error."""
        self._refused.setdefault(str(error), []).append(row.line)

    def empty(self, row: Row, problem: str) -> None:
        """The chat template leaves something out that training needs, such as "an empty answer"."""
        self._empty.setdefault(problem, []).append(row.line)

    def too_long(self, row: Row, n_tokens: int) -> None:
        """The row has more tokens than the model holds."""
        self._too_long[row.line] = max(n_tokens, self._too_long.get(row.line, 0))

    def check(self, length_told: Callable[[str, int], str]) -> None:
        """Raises `PromptInvalid` or `OutOfContext` for what was gathered; does nothing without a fault.

        `length_told` makes the end of a sentence of "its" or "the longest" and a number of tokens.
        """
        for error, lines in self._refused.items():
            raise PromptInvalid(f"The model's chat template refused {self._rows(lines)}: {error}")
        for problem, lines in self._empty.items():
            raise PromptInvalid(f"The model's chat template makes {problem} of {self._rows(lines)}.")
        if self._too_long:
            self._raise_too_long(length_told)

    def _raise_too_long(self, length_told: Callable[[str, int], str]) -> NoReturn:
        lines = list(self._too_long)
        longest = max(self._too_long.values())
        if len(lines) == 1:
            raise OutOfContext(
                f"The {self._name} row on line {lines[0]} is too long: {length_told('its', longest)}."
            )
        rows = f"{len(lines):,} of {self._n_rows:,} {self._name} rows are too long ({lines_in_words(lines)})"
        raise OutOfContext(f"{rows}: {length_told('the longest', longest)}.")

    def _rows(self, lines: list[int]) -> str:
        if len(lines) == 1:
            return f"the {self._name} row on line {lines[0]}"
        return f"{len(lines):,} of {self._n_rows:,} {self._name} rows ({lines_in_words(lines)})"
