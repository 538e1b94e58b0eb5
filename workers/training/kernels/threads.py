"""A kernel's work in as many threads as torch may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch


def in_parts(kernel: Callable[..., None], n: int, least: int, *args: Any) -> None:
    """Call kernel(first, last, *args) for parts of `n` items, of at least `least`, that lie side by side.

    A kernel must give an item the same result whichever part it is in.
    """
    parts = max(1, min(torch.get_num_threads(), n // least))
    cuts = [n * i // parts for i in range(parts + 1)]
    *others, (first, last) = pairwise(cuts)
    running = [_pool().submit(kernel, *part, *args) for part in others]
    kernel(first, last, *args)
    for part in running:
        part.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="kernel")
