"""What a GPU's sampler may take of its memory, and in which few sizes it steps.

What fits that memory is arithmetic without torch: methods/sizes/sampler.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from methods.sizes.sampler import CACHE_SHARE, LEAST_ROWS, Needs, Shape, doubled
from workers.training.base.device_memory import free_bytes

SERVING_SHARE = 0.7
"""The share of a GPU's free memory that a sampler takes which serves (`CACHE_SHARE` where there is training).
What is left is for reading prompts. Chosen.
"""
BYTES_WITHOUT_GPU = 1 << 30
"""What sampling may take where the device is a CPU. Chosen."""
LEAST_COLUMNS = 128
"""The columns of the smallest step. Chosen: below, reading the weights takes the time, not columns."""


class Size(NamedTuple):
    """Says what one step is padded to."""

    rows: int
    columns: int


def budget_of(device: torch.device, share: float = CACHE_SHARE) -> int:
    """Returns what sampling may take of a device's memory now, in bytes."""
    free = free_bytes(device)
    return BYTES_WITHOUT_GPU if free is None else int(share * free)


def sizes(shape: Shape, needs: Needs) -> Iterator[Size]:
    """Yields the sizes that the steps of a call may have, the largest first.

    Rows and columns double from size to size: a step computes at most twice the rows that are active and
    reads at most twice the columns that are filled, or what the smallest step has.
    """
    for rows in reversed(_rungs(LEAST_ROWS, shape.slots, min(needs.rows, shape.slots))):
        for columns in reversed(_rungs(LEAST_COLUMNS, shape.columns, needs.columns)):
            yield Size(rows, columns)


def _rungs(least: int, most: int, needed: int) -> list[int]:
    """Returns least, twice that, ..., and most: up to the first that is enough."""
    found = [min(least, most)]
    while found[-1] < needed:
        found.append(min(2 * found[-1], most))
    return found


def rung(n: int, least: int, most: int) -> int:
    """Returns the first of least, twice that, ..., and most that is n or more."""
    return min(doubled(n, least), most)
