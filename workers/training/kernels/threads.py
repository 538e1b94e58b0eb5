"""A kernel's work in as many threads as torch may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch


def in_parallel(kernel: Callable[..., None], n: int, least: int, *args: Any) -> None:
    """Calls kernel(first, last, *args) for ranges of `n` items, of at least `least`, that lie side by side.

    A kernel must give an item the same result whichever range it is in.
    """
    n_ranges = max(1, min(torch.get_num_threads(), n // least))
    cuts = [n * i // n_ranges for i in range(n_ranges + 1)]
    *others, (first, last) = pairwise(cuts)
    running = [_pool().submit(kernel, *bounds, *args) for bounds in others]
    kernel(first, last, *args)
    for bounds in running:
        bounds.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="kernel")
