"""Reads every number of a file of weights once: its hash, and which tensors hold NaN or an infinity.

A number is neither if its exponent has all bits set. Where these bits are is a matter of bytes, so no library
is needed, and one tensor after the other goes through memory in pieces.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from methods.model_files.weights import stored_tensors

PIECE = 8 << 20
"""Bytes that are read at a time; a multiple of every type's size. Chosen, not measured."""
MOST_NAMED = 3
"""Tensors that are told of those that hold such numbers. Chosen, not measured."""


class Layout(NamedTuple):
    """Says which bytes of a little-endian number tell that it is not finite.

    Attributes:
        size: its bytes.
        last: values of its last byte that a number which is not finite may have.
        mask: bits of the byte before that are all set then; 0 where the last byte says it alone.
    """

    size: int
    last: frozenset[int]
    mask: int = 0


def _of_either_sign(*values: int) -> frozenset[int]:
    return frozenset(value | sign for value in values for sign in (0, 0x80))


LAYOUTS = {
    "BF16": Layout(2, _of_either_sign(0x7F), 0x80),
    "F16": Layout(2, _of_either_sign(*range(0x7C, 0x80))),
    "F32": Layout(4, _of_either_sign(0x7F), 0x80),
    "F64": Layout(8, _of_either_sign(0x7F), 0xF0),
    "C64": Layout(4, _of_either_sign(0x7F), 0x80),
    "F8_E5M2": Layout(1, _of_either_sign(*range(0x7C, 0x80))),
    "F8_E4M3": Layout(1, _of_either_sign(0x7F)),
    "F8_E4M3FN": Layout(1, _of_either_sign(0x7F)),
    "F8_E4M3FNUZ": Layout(1, frozenset((0x80,))),
    "F8_E8M0": Layout(1, frozenset((0xFF,))),
}
"""By the types of safetensors. The others hold no such numbers."""
FOUND, NOT = b"\x01", b"\x00"


class Contents(NamedTuple):
    """Holds the sha256 of a file, and the names of its tensors that hold NaN or an infinity."""

    sha256: str
    not_finite: tuple[str, ...]


def read_numbers(path: Path) -> Contents:
    """Reads a file of weights whose header was checked."""
    tensors = stored_tensors(path)
    start = path.stat().st_size - sum(tensor.n_bytes for tensor in tensors.values())
    digest = hashlib.sha256()
    faulty: list[str] = []
    with path.open("rb") as file:
        digest.update(file.read(start))
        for name, tensor in tensors.items():
            layout = LAYOUTS.get(tensor.dtype)
            left, is_faulty = tensor.n_bytes, False
            while left and (piece := file.read(min(PIECE, left))):
                digest.update(piece)
                left -= len(piece)
                is_faulty = is_faulty or (layout is not None and not is_finite(piece, layout))
            if is_faulty:
                faulty.append(name)
    return Contents(digest.hexdigest(), tuple(faulty))


def is_finite(numbers: bytes, layout: Layout) -> bool:
    """Tells whether none of these numbers is NaN or an infinity."""
    marked = bytes(FOUND[0] if byte in layout.last else NOT[0] for byte in range(256))
    last = numbers[layout.size - 1 :: layout.size].translate(marked)
    if not layout.mask:
        return FOUND not in last
    at = last.find(FOUND)
    while at >= 0:  # only numbers above 1e38 get here
        if numbers[at * layout.size + layout.size - 2] & layout.mask == layout.mask:
            return False
        at = last.find(FOUND, at + 1)
    return True


def not_finite_told(name: str, not_finite: tuple[str, ...]) -> str:
    """Says which tensors of a file hold such numbers."""
    named = ", ".join(f"'{each[:100]}'" for each in not_finite[:MOST_NAMED])
    more = f" and {len(not_finite) - MOST_NAMED} more" if len(not_finite) > MOST_NAMED else ""
    return f"{name} holds NaN or an infinity in {named}{more}"
