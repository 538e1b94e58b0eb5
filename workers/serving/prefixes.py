"""What is kept of sequences that were read, so that a prompt that begins alike need not read them again.

Sequences are found by their blocks of `BLOCK` tokens: a block's hash stands for all tokens up to its end.
What was found is compared token by token, so that a hash decides nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workers.training.sampling.lasting import Kept

BLOCK = 16
"""Tokens of a block: fewer than these in common are read again. Chosen, not measured: reading them takes as
long as one step.
"""


@dataclass(eq=False)
class Entry:
    """Is one sequence.

    Attributes:
        owner: whose keys and values they are: the model that read the tokens.
        take: returns what is kept of at least so many of its first tokens.
        nbytes: memory that is freed with it; 0 for what a running request holds anyway.
    """

    owner: Hashable
    tokens: Sequence[int]
    take: Callable[[int], Kept]
    nbytes: int


class Prefixes:
    """Holds sequences up to a number of bytes; the one that was not used for longest makes room."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Entry, list[int]] = OrderedDict()
        self._by_block: dict[int, dict[Entry, None]] = {}
        self._by_last_block: dict[int, dict[Entry, None]] = {}
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def longest(self, owner: Hashable, tokens: Sequence[int]) -> tuple[Entry, int] | None:
        """Returns the sequence that has the most first tokens in common, and how many; None below a block."""
        found: Entry | None = None
        for block in _blocks(owner, tokens):
            known = self._by_block.get(block)
            if not known:
                break
            found = next(reversed(known))
        if found is None or found.owner != owner:
            return None
        n = _common(found.tokens, tokens)
        if n < BLOCK:
            return None
        self._entries.move_to_end(found)
        return found, n

    def put(self, entry: Entry) -> None:
        """Takes a sequence in. What it begins with need not be kept by itself any longer."""
        blocks = list(_blocks(entry.owner, entry.tokens))
        if not blocks:
            return
        self._forget_beginnings(entry, blocks)
        self._entries[entry] = blocks
        self.nbytes += entry.nbytes
        for block in blocks:
            self._by_block.setdefault(block, {})[entry] = None
        self._by_last_block.setdefault(blocks[-1], {})[entry] = None

    def _forget_beginnings(self, entry: Entry, blocks: Sequence[int]) -> None:
        shorter = [known for block in blocks for known in self._by_last_block.get(block, ())]
        for known in shorter:
            n = len(known.tokens)
            if known.nbytes and n <= len(entry.tokens) and _common(known.tokens, entry.tokens) == n:
                self.drop(known)

    def drop(self, entry: Entry) -> None:
        """Forgets a sequence, if it is known."""
        blocks = self._entries.pop(entry, None)
        if blocks is None:
            return
        self.nbytes -= entry.nbytes
        for block in blocks:
            _remove(self._by_block, block, entry)
        _remove(self._by_last_block, blocks[-1], entry)

    def shrink(self, nbytes: int) -> None:
        """Forgets what was not used for longest until no more than `nbytes` are held."""
        for entry in list(self._entries):
            if self.nbytes <= nbytes:
                return
            if entry.nbytes:
                self.drop(entry)


def _remove(index: dict[int, dict[Entry, None]], block: int, entry: Entry) -> None:
    del index[block][entry]
    if not index[block]:
        del index[block]


def _blocks(owner: Hashable, tokens: Sequence[int]) -> Iterator[int]:
    found = hash(owner)
    for end in range(BLOCK, len(tokens) + 1, BLOCK):
        found = hash((found, *tokens[end - BLOCK : end]))
        yield found


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
