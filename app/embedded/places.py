"""Folders and locks of embedded servers."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import IO

from app.process import EmbeddedError, User

SOCKET_PATH_LIMIT = 90
"""The kernel takes 107 bytes; the rest is for the socket's own name."""


def reachable(path: Path, user: User) -> bool:
    """Tells whether that user may enter every folder above `path` and read or enter `path` itself."""
    for place in (path, *path.parents):
        info = place.stat()
        shift = 6 if info.st_uid == user.uid else 3 if info.st_gid == user.gid else 0
        if not info.st_mode >> shift & stat.S_IXOTH:
            return False
    return True


def private_folder(folder: Path, owner: User | None = None) -> Path:
    """Makes, or checks, a folder that only its owner may enter."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    wanted = owner.uid if owner else os.geteuid()
    info = folder.lstat()
    if owner and info.st_uid == os.geteuid() != wanted and stat.S_ISDIR(info.st_mode):
        os.chown(folder, owner.uid, owner.gid)
        info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != wanted:
        raise EmbeddedError(f"{folder} belongs to another user; remove it and start again")
    folder.chmod(0o700)
    return folder


def socket_folder(folder: Path, name: str, owner: User | None = None) -> Path:
    """Returns a private folder for sockets: `folder`/run, or a short one elsewhere when that would not work.

    A socket's path is limited to about 100 bytes, and its server must be able to reach it.
    """
    inside = folder / "run"
    fits = len(os.fsencode(inside / name)) <= SOCKET_PATH_LIMIT
    if fits and (owner is None or reachable(folder, owner)):
        return private_folder(inside, owner)
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    usable = runtime and owner is None and len(runtime) < 50 and Path(runtime).is_dir()
    parent = Path(runtime if usable else tempfile.gettempdir())
    return private_folder(parent / f"cherry-{os.geteuid()}-{digest}", owner)


def remove_outside(sockets: Path, folder: Path) -> None:
    """Removes an empty socket folder that `socket_folder` had to make elsewhere."""
    if sockets.parent != folder:
        with contextlib.suppress(OSError):  # not empty: its server still runs
            sockets.rmdir()


def try_lock(path: Path) -> IO[str] | None:
    """Locks a file for as long as the returned handle lives. Returns None if another process holds it."""
    handle = path.open("a")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle


def write_private(path: Path, text: str, owner: User | None = None) -> None:
    """Writes a file that only its owner may read, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if owner:
        os.chown(partial, owner.uid, owner.gid)
    partial.replace(path)
