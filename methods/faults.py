"""What is wrong with rows, told once for all the lines that have the same fault."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

MAX_REASONS = 20
"""Different faults of one file that are told; reading stops there."""
MAX_RANGES = 10
"""Ranges of lines that are written out for one fault."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a line. Line 0 means the whole file."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}" if self.line else self.reason


def lines_in_words(lines: Iterable[int]) -> str:
    """Returns "line 7", or "lines 1-4, 9": the numbers as ascending ranges, the first `MAX_RANGES`."""
    ranges: list[list[int]] = []
    for line in sorted(lines):
        if ranges and line == ranges[-1][1] + 1:
            ranges[-1][1] = line
        else:
            ranges.append([line, line])
    words = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges[:MAX_RANGES])
    left = sum(b - a + 1 for a, b in ranges[MAX_RANGES:])
    many = len(ranges) > 1 or (bool(ranges) and ranges[0][0] != ranges[0][1])
    return f"line{'s' if many else ''} {words}" + (f" and {left:,} more" if left else "")


def told(faults: Sequence[Fault], n_rows: int) -> Iterator[str]:
    """Yields a sentence for each different fault, with its lines, and of how many rows these are."""
    lines: dict[str, list[int]] = {}
    for fault in faults:
        lines.setdefault(fault.reason, []).append(fault.line)
    for reason, at in lines.items():
        if len(at) == 1:
            yield str(Fault(at[0], reason))
        else:
            yield f"{lines_in_words(at)} ({len(at):,} of {n_rows:,} rows): {reason}"
