"""Memory that is taken where it is written to, and given back by the slot: for caches of whole contexts.

A slot for every sequence, each as long as the model's context, would mostly lie empty. The system's pages
hold what was written alone, and its page table does what a table of ours would have to.
"""

from __future__ import annotations

import mmap
from math import prod

import torch
from torch import Tensor

NO_RESERVE = 0x4000
"""MAP_NORESERVE, which Python 3.11 does not name: no memory is set aside. It follows from Linux."""


class LazyMemory:
    """Hands out tensors of zeros on the CPU, and gives back what parts of them hold."""

    def __init__(self) -> None:
        self._maps: dict[int, mmap.mmap] = {}

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Returns zeros that take no memory before they are written to. Raises `OSError`."""
        size = max(1, prod(shape) * dtype.itemsize)
        reserved = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE)
        found = torch.frombuffer(reserved, dtype=dtype)[: prod(shape)].view(shape)
        self._maps[found.untyped_storage().data_ptr()] = reserved
        return found

    def give_back(self, part: Tensor) -> None:
        """Empties a contiguous part of such a tensor, but for the ends of its first and last page."""
        reserved = self._maps[part.untyped_storage().data_ptr()]
        start = part.storage_offset() * part.itemsize
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (start + part.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            reserved.madvise(mmap.MADV_DONTNEED, first, last - first)
