"""Makes and empties folders that calls may write into, each on a small memory file system of its own.

Loaded inside the sandbox.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from graders.sandbox import kernel

ROOT = "/scratch"
MAX_FILES = 4096


class Slot(NamedTuple):
    """Gives a place to one call at a time. `folder` is empty where nothing may be written."""

    folder: str
    rules: int
    """Descriptor of the Landlock rules of whoever has this slot; -1 without Landlock."""


def mount_folders(count: int, size: int, owner: int) -> list[str]:
    """Mounts and returns the folders, each of `size` bytes.

    It needs the right to mount, which is given up right after.
    """
    folders = [f"{ROOT}/{index}" for index in range(count)]
    for folder in folders:
        os.mkdir(folder, 0o755)
        kernel.mount_scratch(folder, size, MAX_FILES, owner)
    return folders


def wipe(folder: str) -> None:
    """Leaves nothing of the last call. Folders are emptied from the top, so depth costs no recursion."""
    if names := os.listdir(folder):
        _wipe_from_top(folder, names)
    os.utime(folder, (0, 0))


def _wipe_from_top(folder: str, names: list[str]) -> None:
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        moved = 0
        while names:
            for name in names:
                if _opened_up(top, name):
                    moved = _empty(top, name, moved)
                    os.rmdir(name, dir_fd=top)
                else:
                    os.unlink(name, dir_fd=top)
            names = os.listdir(top)
    finally:
        os.close(top)


def _empty(top: int, name: str, moved: int) -> int:
    """Removes the files of a folder and moves its folders up to the top, under names that are free there.

    Returns the number of the last name that it used.
    """
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        for entry in os.listdir(folder):
            if _opened_up(folder, entry):
                moved += 1
                while _exists(top, f"moved-{moved}"):
                    moved += 1
                os.rename(entry, f"moved-{moved}", src_dir_fd=folder, dst_dir_fd=top)
            else:
                os.unlink(entry, dir_fd=folder)
    finally:
        os.close(folder)
    return moved


def _opened_up(parent: int, name: str) -> bool:
    """Tells whether this is a folder, and makes it one that can be read, emptied and moved.

    A call makes folders with any rights, also with none; its process is gone, so nothing changes meanwhile.
    """
    mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    if not stat.S_ISDIR(mode):
        return False
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        os.chmod(name, stat.S_IRWXU, dir_fd=parent)
    return True


def _exists(top: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=top, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
