"""Tells whether a folder's disk has room, and recognises the errors of one that has none."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_IN_WORDS = re.compile(rf"\(os error ({'|'.join(map(str, FULL))})\)")
"""How libraries written in Rust (safetensors, obstore) tell it, whose errors have no number."""
POSTGRES_FULL = "53100"


class Room(NamedTuple):
    """Bytes that a folder must have free before it is worth another try."""

    folder: str
    bytes: int


def is_full(problem: BaseException | None) -> bool:
    """Tells whether an error, or one that it comes from, says that a disk or a quota is full."""
    while problem is not None:
        if isinstance(problem, OSError) and problem.errno in FULL:
            return True
        if getattr(getattr(problem, "orig", None), "sqlstate", None) == POSTGRES_FULL:
            return True
        if FULL_IN_WORDS.search(str(problem)):
            return True
        problem = problem.__cause__ or problem.__context__
    return False


def fullest(among: Sequence[Path]) -> Path:
    """Returns the folder with the least room; of folders on one disk, the first."""
    return min(among, key=free_bytes)


def free_bytes(folder: Path) -> int:
    """Returns what an ordinary user may still write there, whether or not the folder exists yet."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def has_room(room: Room) -> bool:
    """Tells whether so many bytes can be written to a folder. A missing folder has none.

    What the file system says is tried out, as it knows of no quota.
    """
    folder = Path(room.folder)
    if not folder.is_dir() or free_bytes(folder) < room.bytes:
        return False
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            os.posix_fallocate(probe.fileno(), 0, room.bytes)
    except OSError as problem:
        return problem.errno not in FULL  # another error says nothing of room
    return True


def size_of(folder: Path) -> int:
    """Returns the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
