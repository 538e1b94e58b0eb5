"""What the base wrote for the rows that checkpoints are judged by: graders of groups compare with that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graders import Sample
from workers.training.base.types import Group, Split
from workers.training.rewards import Bases, is_shown, sample_of


@dataclass
class BaseAnswers:
    """Holds the completions of step 0, by split and row; None in the place of one that no grader is shown.

    It is a part of the training state: a checkpoint is judged by it whoever goes on with the run. It is empty
    before step 0, and where no grader compares.
    """

    by_split: dict[str, dict[int, list[Sample | None]]] = field(default_factory=dict)

    def note(self, found: Mapping[Split, Sequence[Group]]) -> None:
        """Keeps what the base wrote."""
        self.by_split = {
            split: {
                group.prompt.row: [sample_of(one) if is_shown(one) else None for one in group.completions]
                for group in groups
            }
            for split, groups in found.items()
        }

    def of(self, split: Split) -> Bases:
        """Returns what a split's completions are compared with."""
        rows = self.by_split.get(split, {})
        return lambda row: rows.get(row, ())

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> BaseAnswers:
        """Reverses `asdict`, after JSON has made a text of each row's number."""
        return cls(
            {
                split: {int(row): [one and Sample(**one) for one in answers] for row, answers in rows.items()}
                for split, rows in facts.get("by_split", {}).items()
            }
        )
