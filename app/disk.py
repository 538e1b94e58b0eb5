"""Knows whether a disk has room, what errors say that it has none, and which remains nobody holds."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_IN_WORDS = re.compile(rf"\(os error ({'|'.join(map(str, FULL))})\)")
"""How libraries written in Rust (safetensors, obstore) tell it, whose errors have no number."""
POSTGRES_FULL = "53100"
LOCK = ".held"
"""The file of a temporary folder that its process holds."""
SETTLED_SECONDS = 10.0
"""Age from which a file that nobody holds is taken for remains: its maker has had time to take hold of it."""


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


def hold(file: IO[bytes]) -> None:
    """Marks an open file as this process's, until it is closed or the process ends, however it does."""
    with suppress(OSError):  # some network file systems cannot; the file is kept for its age then
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


@contextmanager
def scratch_folder(prefix: str, within: Path | None = None) -> Iterator[Path]:
    """Makes a temporary folder which is held, and removed at the end."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=within, ignore_cleanup_errors=True) as made:
        folder = Path(made)
        with (folder / LOCK).open("wb") as lock:
            hold(lock)
            yield folder


def remove_unheld(paths: Iterable[Path]) -> int:
    """Removes files, and folders with a `LOCK`, that no live process holds. Returns how many."""
    return sum(map(_remove_unless_held, paths))


def _remove_unless_held(path: Path) -> bool:
    try:
        if path.is_symlink() or path.stat().st_mtime > time.time() - SETTLED_SECONDS:
            return False
        with (path / LOCK if path.is_dir() else path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError:  # it is held, is whole by now, is another user's, or somebody else sweeps too
        return False
    return True
