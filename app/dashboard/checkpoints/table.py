"""Lays out what was measured of checkpoints: only the columns in which something was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from app.cards.points import Interval, Point
from methods import metrics as names

KEPT, DELIVERED, SNAPSHOT, DROPPED = "kept", "delivered", "snapshot", "files dropped"


class Column(NamedTuple):
    """A column: its heading, what it means in a sentence, and its text for a checkpoint, or nothing."""

    heading: str
    meaning: str
    text: Callable[[Row], str]


@dataclass(frozen=True)
class Row:
    """A checkpoint, and the numbers of its step."""

    point: Point
    values: Mapping[str, Any]

    @property
    def state(self) -> str:
        """Returns whether its files are there, and which it is among those."""
        checkpoint = self.point.checkpoint
        if self.point.is_delivered:
            return DELIVERED
        if checkpoint.storage_key is None:
            return DROPPED
        return SNAPSHOT if checkpoint.is_snapshot else KEPT

    def trusted(self, name: str) -> float | None:
        """Returns a number that was measured beside the reward."""
        value = (self.point.checkpoint.trust or {}).get(name)
        return value if isinstance(value, int | float) else None

    def value(self, name: str) -> float | None:
        """Returns a number of the checkpoint's step."""
        value = self.values.get(name)
        return value if isinstance(value, int | float) else None


COLUMNS = (
    Column(
        "Validation reward",
        "The mean reward on the validation rows, with its standard error.",
        lambda row: _with_error(
            "{:.3f}", row.point.checkpoint.valid_reward, row.point.checkpoint.valid_reward_stderr
        ),
    ),
    Column(
        "Gain over base",
        "Reward over the base's on the same rows; in brackets bounds that hold with 95 %.",
        lambda row: (
            ""
            if row.point.checkpoint.step == 0
            else _between("{:+.3f}", row.point.gain, row.point.gain_interval)
        ),
    ),
    Column(
        "p, adjusted",
        "How likely luck gains as much, counting every checkpoint that was looked at. 0.05 or less counts.",
        lambda row: _number("{:.2g}", row.point.p),
    ),
    Column(
        "Greedy reward",
        "The mean reward of one answer a row at temperature 0.",
        lambda row: _number("{:.3f}", row.trusted("greedy_reward")),
    ),
    Column(
        "Gold gap",
        "How much of the gain the gold grader does not see, as a share of the grader's range.",
        lambda row: _number("{:+.3f}", row.value(names.GOLD_GAP)),
    ),
    Column(
        "Validation loss",
        "The mean loss on the validation rows.",
        lambda row: _number("{:.4f}", row.value(names.LOSS.format(split="full_valid"))),
    ),
    Column(
        "Validation accuracy",
        "The share of tokens, or of pairs, that the model puts first.",
        lambda row: _number("{:.3f}", row.value(names.ACCURACY.format(split="full_valid"))),
    ),
    Column(
        "Training loss",
        "The loss of the checkpoint's step.",
        lambda row: _number("{:.4f}", row.value(names.LOSS.format(split="train"))),
    ),
    Column(
        "KL to base",
        "How far the model has moved from its base, in nats per token, with its standard error.",
        lambda row: _with_error("{:.4f}", row.point.checkpoint.kl, row.point.checkpoint.kl_stderr),
    ),
    Column(
        "Canary, over base",
        "By how much the loss on the canary texts has risen: what was forgotten.",
        lambda row: _number("{:+.3f}", row.trusted("canary_over_base")),
    ),
)


class Table(NamedTuple):
    """Columns in which something is, and the rows with the texts of these columns."""

    columns: list[Column]
    rows: list[tuple[Row, list[str]]]


def table(rows: Sequence[Row]) -> Table:
    """Returns the rows with every column that any of them fills."""
    filled = [column for column in COLUMNS if any(column.text(row) for row in rows)]
    return Table(filled, [(row, [column.text(row) for column in filled]) for row in rows])


def _number(form: str, value: float | None) -> str:
    return "" if value is None else form.format(value)


def _with_error(form: str, value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{form.format(value)} ± {'unknown' if error is None else form.format(error)}"


def _between(form: str, value: float | None, interval: Interval) -> str:
    if value is None:
        return ""
    if interval.low is None or interval.high is None:
        return form.format(value)
    return f"{form.format(value)} ({form.format(interval.low)} to {form.format(interval.high)})"
