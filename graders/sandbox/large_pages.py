"""Keeps what a fork-server has loaded in few large pages. Loaded inside the sandbox: standard library only.

A fork copies an entry for each page, and a forked process gives each back when it ends: with pandas loaded
that is 13,000 pages of 4 KiB and half of what a call costs. In pages of 2 MiB it is a few dozen; a process
that writes to one still copies 4 KiB. The kernel joins pages on demand since Linux 6.1; an older one leaves
them as they are, and calls only cost more.

A large page needs 2 MiB side by side. Python's arenas for small objects, of 1 MiB each, would come to lie
between the libraries that are loaded meanwhile, so they are made ahead; larger blocks stay in one heap.
"""

from __future__ import annotations

import gc

from graders.sandbox import kernel

LARGE_PAGE = 2 * 2**20
_OBJECT = 512
"""The largest size that comes out of an arena."""
_ARENA = 2**20
_ARENAS = 128
"""Made ahead; those that stay empty are given back. All packages together take about a hundred."""
_HEAP_STEP, _MAPPED_BLOCK = 4 * 2**20, 32 * 2**20
"""By how much the heap grows, and the smallest block outside it: as large as malloc allows it to be."""
_USUAL = 128 * 2**10
"""Both in any other process."""


class LargePages:
    """Keeps what is loaded in large pages: make one first of all, load modules, then join."""

    def __init__(self) -> None:
        self._heap = kernel.heap_end()
        kernel.set_malloc(kernel.HEAP_STEP, _HEAP_STEP)
        kernel.set_malloc(kernel.MAPPED_BLOCK, _MAPPED_BLOCK)
        each = _ARENA // _OBJECT
        objects = [bytes(_OBJECT - b"".__sizeof__()) for _ in range(_ARENAS * each)]
        self._first, self._last = min(map(id, objects)), max(map(id, objects))
        self._keeping = objects[::each]
        """One in each arena: it would be given back at once otherwise."""

    def join(self) -> None:
        """Gives back what was not needed and makes large pages of the rest."""
        gc.collect()
        self._keeping.clear()
        kernel.set_malloc(kernel.HEAP_STEP, _USUAL)
        kernel.set_malloc(kernel.MAPPED_BLOCK, _USUAL)
        for first, last in ((self._first, self._last), (self._heap, kernel.heap_end())):
            for page in range(first // LARGE_PAGE * LARGE_PAGE, last, LARGE_PAGE):
                kernel.join_pages(page, LARGE_PAGE)
