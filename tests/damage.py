"""Damages what is stored, as a bad disk does."""

from __future__ import annotations

from app.storage import get_storage


def flip_last_bit(key: str) -> None:
    """Changes one bit of a stored file, whose length stays."""
    path = get_storage().local_path(key)
    assert path
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
