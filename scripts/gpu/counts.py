"""What a run would have asked of a GPU: kernels, graphs, copies and waits, with the lines that asked."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType

ROOT = str(Path(__file__).resolve().parents[2]) + "/"
HERE = str(Path(__file__).resolve().parent) + "/"

Place = tuple[str, str]
"""(what was asked for, "file:line" of who asked)."""


class Counts:
    """Counts what was asked of the device since it was made or last cleared.

    Attributes:
        kernels: by name, those launched one by one; views and empty tensors launch none.
        captured: for each capture, its kernels by name.
        replays: of graphs.
        replayed: by name, kernels that ran in replays.
        failed_captures: captures that raised.
        waits: what makes the host wait for the device, by kind and place.
        copies: between host and device, whether waited for or not, by direction and place.
        copied: bytes, by direction and place.
        contexts: calls that open a CUDA context where there is none, by name and place.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begins at zero again."""
        self.kernels: Counter[str] = Counter()
        self.captured: list[Counter[str]] = []
        self.replays = 0
        self.replayed: Counter[str] = Counter()
        self.failed_captures = 0
        self.waits: Counter[Place] = Counter()
        self.copies: Counter[Place] = Counter()
        self.copied: Counter[Place] = Counter()
        self.contexts: Counter[Place] = Counter()

    def wait(self, kind: str) -> None:
        """Counts a wait of the host for the device."""
        self.waits[kind, asked_at()] += 1

    def copy(self, direction: str, size: int, *, waits: bool) -> None:
        """Counts a copy of so many bytes, and a wait where the host waits for it."""
        place = asked_at()
        self.copies[direction, place] += 1
        self.copied[direction, place] += size
        if waits:
            self.wait(f"copy {direction}")

    def summary(self) -> dict[str, int]:
        """Returns each total by its name."""
        return {
            "kernels": self.kernels.total(),
            "captures": len(self.captured),
            "failed captures": self.failed_captures,
            "replays": self.replays,
            "replayed kernels": self.replayed.total(),
            "waits": self.waits.total(),
            "copies": self.copies.total(),
        }

    def report(self, most: int = 20) -> str:
        """Returns the totals and the places that wait most, a line each."""
        lines = [f"{number:>9,} {name}" for name, number in self.summary().items()]
        lines += [f"{number:>9,} {kind}, {place}" for (kind, place), number in self.waits.most_common(most)]
        return "\n".join(lines)


def asked_at() -> str:
    """Returns "file:line" of the innermost caller in this project, or else in a library other than torch."""
    library = "?"
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/site-packages/" in name:
            if library == "?" and "/torch/" not in name:
                library = f"{name.split('/site-packages/')[-1]}:{frame.f_lineno}"
        elif name.startswith(ROOT) and (not name.startswith(HERE) or "/checks/" in name):
            return f"{name[len(ROOT) :]}:{frame.f_lineno}"
        frame = frame.f_back
    return library
