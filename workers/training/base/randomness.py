"""Random numbers by key instead of by state: each is a pure function of what it is for.

So a completion does not depend on its neighbours, and a resumed run needs no generator put back.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def keyed_seed(*key: int | str) -> int:
    """Returns 64 bits for a key such as ("train", seed, step, row, sample)."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def uniforms(seeds: NDArray[np.uint64], counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the `counts`-th uniform number of each seed's stream, in [0, 1) with 24 bits.

    (B,) seeds, (B,) counts -> (B,).

    Source: SplitMix64, Steele, Lea and Flood 2014 (doi:10.1145/2660193.2660195).
    """
    z = seeds + (counts.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX[0]
    z = (z ^ (z >> np.uint64(27))) * _MIX[1]
    z = z ^ (z >> np.uint64(31))
    drawn: NDArray[np.float32] = (z >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
    return drawn


def shuffled(n_rows: int, *key: int | str) -> list[int]:
    """Returns the numbers 0 to n - 1 in an order that follows from the key alone."""
    return sorted(range(n_rows), key=lambda row: keyed_seed(*key, row))
