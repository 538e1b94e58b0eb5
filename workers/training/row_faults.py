"""Gathers what keeps the rows of a file from being trained on: its owner is told all of it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

from methods.faults import lines_in_words
from methods.rows import Row
from workers.training.base.errors import OutOfContext, PromptInvalid
from workers.training.rendering.losses import Losses

T = TypeVar("T")


class RowDoubt(NamedTuple):
    """Says what is doubtful about some rows of a file, on which lines."""

    message: str
    lines: tuple[int, ...]


class RowFaults:
    """The faults of one file's rows. `name` ("training", "validation") is what errors call the file."""

    def __init__(self, name: str, n_rows: int) -> None:
        self._name = name
        self._n_rows = n_rows
        self._refused: dict[str, list[int]] = {}
        self._empty: dict[str, list[int]] = {}
        self._lost: dict[str, list[int]] = {}
        self._without_row: dict[str, list[int]] = {}
        self._mild: dict[str, list[int]] = {}
        self._unlike: dict[str, list[int]] = {}
        self._untold: dict[str, list[int]] = {}
        self._too_long: dict[int, int] = {}

    def attempt(self, row: Row, render: Callable[[], T]) -> T | None:
        """Returns what `render` makes of a row; None where the chat template refuses it, which is noted."""
        try:
            return render()
        except MemoryError:
            raise
        except Exception as error:  # a template is a program of its own and may refuse a row in any way
            self._refused.setdefault(str(error), []).append(row.line)
            return None

    def empty(self, row: Row, problem: str) -> None:
        """The chat template leaves something out that training needs, such as "an empty answer"."""
        _note(self._empty, problem, row)

    def note(self, row: Row, found: Losses) -> None:
        """The chat template leaves these pieces of the row out."""
        for what in found.grave:
            _note(self._lost, what, row)
        for what in found.mild:
            _note(self._mild, what, row)

    def note_unlike(self, row: Row, ending: str) -> None:
        """A model that is asked gets a prompt that ends so; the row's answer goes on from another."""
        if ending:
            _note(self._unlike, ending, row)

    def note_untold(self, row: Row, why: str) -> None:
        """The row's answer begins with thoughts that will not be told from it, for this reason."""
        if why:
            _note(self._untold, why, row)

    def check_ids(self, row: Row, tokens: Sequence[int], tokenizer: Any, vocabulary: int | None) -> None:
        """The model knows the tokens below `vocabulary` alone; None where that is not known."""
        if vocabulary is not None and max(tokens, default=0) >= vocabulary:
            token = next(token for token in tokens if token >= vocabulary)
            name = tokenizer.convert_ids_to_tokens(token)
            _note(self._without_row, f"the token {name!r} ({token}; it has {vocabulary:,} rows)", row)

    def too_long(self, row: Row, n_tokens: int) -> None:
        """The row has more tokens than the model holds."""
        self._too_long[row.line] = max(n_tokens, self._too_long.get(row.line, 0))

    def check(self, length_told: Callable[[str, int], str]) -> None:
        """Raises `PromptInvalid` or `OutOfContext` for what was gathered; does nothing without a fault.

        `length_told` makes the end of a sentence of "its" or "the longest" and a number of tokens.
        """
        for error, lines in self._refused.items():
            raise PromptInvalid(f"The model's chat template refused {self._rows(lines)}: {error}")
        for what, lines in self._lost.items():
            raise PromptInvalid(
                f"The model's chat template leaves out {what} of {self._rows(lines)}: the model would never"
                " see it. Leave it out of the file too, or use a model whose template shows it"
                " (`cherry models add --template`)."
            )
        for problem, lines in self._empty.items():
            raise PromptInvalid(f"The model's chat template makes {problem} of {self._rows(lines)}.")
        for token, lines in self._without_row.items():
            raise PromptInvalid(f"The model has no embedding row for {token} in {self._rows(lines)}.")
        if self._too_long:
            self._raise_too_long(length_told)

    def doubts(self) -> list[RowDoubt]:
        """Returns what rows are trained without, prompts that differ, and thoughts that pass for answers."""
        return [*self._dropped(), *self._differing(), *self._in_text()]

    def _dropped(self) -> list[RowDoubt]:
        return [
            RowDoubt(
                f"The model's chat template leaves out {what} of {self._rows(lines)}: the model learns"
                " without it.",
                tuple(lines),
            )
            for what, lines in self._mild.items()
        ]

    def _differing(self) -> list[RowDoubt]:
        return [
            RowDoubt(
                f"The model's chat template ends the prompt of a model that is asked with {ending!r}, and"
                f" writes the answer of {self._rows(lines)} without it: what is learned is not asked so.",
                tuple(lines),
            )
            for ending, lines in self._unlike.items()
        ]

    def _in_text(self) -> list[RowDoubt]:
        return [
            RowDoubt(f"The thoughts of {self._rows(lines)} {why}", tuple(lines))
            for why, lines in self._untold.items()
        ]

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


def _note(of: dict[str, list[int]], what: str, row: Row) -> None:
    """Notes a row's line once for each thing."""
    lines = of.setdefault(what, [])
    if not lines or lines[-1] != row.line:
        lines.append(row.line)
