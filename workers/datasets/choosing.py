"""Chooses the rows of a file among candidates: no copies, and nothing that the validation file asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from methods.messages import RowInvalid
from methods.rows import Row
from methods.tuning_rows import row_check
from workers.datasets.rows import Candidate, LeftOut
from workers.preflights.duplicates import Prompt, find_conflicts, find_copies
from workers.preflights.files import asked_by

Dedupe = Literal["none", "exact", "near"]
NEVER = datetime.min.replace(tzinfo=UTC)
MOST_EXAMPLES = 5
"""Rows of no valid form that a report names. Chosen, not measured."""


@dataclass
class Chosen:
    """What became of the candidates so far. `left_out` counts by reason those that are not in `rows`."""

    rows: list[Candidate] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    invalid: list[dict[str, str]] = field(default_factory=list)
    """Some rows that a job of the method would refuse, with the reason."""
    conflicting: int = 0
    """Rows with a prompt that another row has too, with another answer."""

    def take(self, found: Iterable[Candidate | LeftOut]) -> None:
        """Takes in candidates, and counts what became none."""
        for each in found:
            if isinstance(each, Candidate):
                self.rows.append(each)
            else:
                self.left_out[each.reason] += 1

    def keep_valid(self, format_: str) -> None:
        """Leaves out rows that a job of the method would refuse."""
        check, kept = row_check(format_), []
        for candidate in self.rows:
            try:
                check(candidate.row)
            except RowInvalid as fault:
                self.left_out["invalid"] += 1
                named = {"completion_id": candidate.sources[0].completion_id, "reason": str(fault)}
                self.invalid = [*self.invalid, named][:MOST_EXAMPLES]
            else:
                kept.append(candidate)
        self.rows = kept

    def redact(self, rows: Sequence[dict[str, Any] | None]) -> int:
        """Puts redacted rows in place of the candidates' own. Returns how many were changed."""
        pairs = list(zip(self.rows, rows, strict=True))
        self.left_out["redacted"] += sum(row is None for _, row in pairs)
        self.rows = [replace(candidate, row=row) for candidate, row in pairs if row is not None]
        return sum(row is not None and row != candidate.row for candidate, row in pairs)

    def drop(self, places: Mapping[int, str]) -> None:
        """Leaves out the rows at these places, for these reasons."""
        self.left_out += Counter(places.values())
        self.rows = [each for place, each in enumerate(self.rows) if place not in places]

    def sort_for_choice(self) -> None:
        """Puts first what stays of rows with one prompt: that of which something was said last, else the
        newest."""
        self.rows.sort(key=lambda each: (each.said_at or NEVER, each.stored_at), reverse=True)

    def keep_newest(self, most: int) -> None:
        """Leaves the newest rows, in the order in which they were stored."""
        ordered = sorted(self.rows, key=lambda each: (each.stored_at, each.sources[0].completion_id))
        self.left_out["over_max_rows"] += max(0, len(ordered) - most)
        self.rows = ordered[-most:]


def copies(
    rows: Sequence[Candidate], format_: str, dedupe: Dedupe, validation: Sequence[Row]
) -> dict[int, str]:
    """Returns the places of rows that go, with the reason: `leak` for a prompt of the validation file, else
    `exact_duplicate` or `near_duplicate` of a row before it.

    What copies a leak is one, whatever it was compared with.
    """
    fixed = [asked_by(row, format_, None) for row in validation]
    leaks: set[int] = set()
    reasons: dict[int, str] = {}
    for copy in find_copies([*fixed, *_prompts(rows, format_)]):
        place, first = copy.place - len(fixed), copy.first - len(fixed)
        if place < 0:
            continue
        if first < 0 or first in leaks:
            leaks.add(place)
            reasons[place] = "leak"
        elif dedupe == "near" or (dedupe == "exact" and copy.is_exact):
            reasons[place] = "exact_duplicate" if copy.is_exact else "near_duplicate"
    return reasons


def conflicting(rows: Sequence[Candidate], format_: str) -> int:
    """Returns how many rows have a prompt that another has too, with another answer."""
    return sum(map(len, find_conflicts(_prompts(rows, format_))))


def _prompts(rows: Sequence[Candidate], format_: str) -> list[Prompt]:
    return [asked_by(Row(place, each.row), format_, None) for place, each in enumerate(rows)]
