"""Holds rows of the training file out for validation, where a job has no validation file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace

from methods.rows import Row

LEAST_HELD_OUT = 10
"""Rows that are held out at least: of fewer hardly any gain can be shown (five prove something at best)."""


def n_held_out(n_rows: int, share: float) -> int:
    """Returns how many of the rows a share of them means: at least 10, and none where it is 0."""
    return max(LEAST_HELD_OUT, math.ceil(share * n_rows)) if share else 0


def hold_out(rows: Sequence[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Returns the rows to train on and those held out, each in the file's order.

    Rows with the same messages stay together, so that no held-out prompt is trained on: a few more or fewer
    than asked for may be held out. Which they are follows from the seed.
    """
    wanted = n_held_out(len(rows), share)
    by_prompt: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        by_prompt.setdefault(_key(row, seed), []).append(i)
    held: set[int] = set()
    for key in sorted(by_prompt):
        if len(held) + len(by_prompt[key]) <= wanted:
            held.update(by_prompt[key])
    placed = [replace(row, place=i) for i, row in enumerate(rows)]
    train = [row for i, row in enumerate(placed) if i not in held]
    return train, [row for i, row in enumerate(placed) if i in held]


def _key(row: Row, seed: int) -> str:
    text = json.dumps([seed, row.item["messages"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
