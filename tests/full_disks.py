"""Small file systems of a test's own, which can be filled up."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """Mounts a file system of that size in memory. Skips the test where that is not allowed."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a file system takes root on Linux")
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs"]
    mounted = subprocess.run(["mount", *options, folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting a file system is not allowed: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, leaving: int = 0) -> Path:
    """Fills a disk up but for so many bytes, beside others who write to it. Returns the file to delete."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        for _ in range(100):
            size = shutil.disk_usage(folder).free - leaving
            try:
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
                break
            except OSError as error:  # what was free a moment ago has been taken since
                if error.errno != errno.ENOSPC:
                    raise
        else:
            raise AssertionError(f"{folder} could not be filled")
    return ballast
