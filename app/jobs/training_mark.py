"""Whether a training runs on this machine: each holds a file of the data folder for as long as it lives."""

from __future__ import annotations

import fcntl
from contextlib import suppress
from pathlib import Path
from typing import IO

MARK = "training.lock"


def mark_training(data_dir: Path) -> IO[bytes]:
    """Takes hold of the file, beside other trainings, until the handle is closed or the process ends."""
    data_dir.mkdir(parents=True, exist_ok=True)
    handle = (data_dir / MARK).open("ab")
    with suppress(OSError):  # some network file systems have no locks
        fcntl.flock(handle, fcntl.LOCK_SH)  # waits for whoever looks just now, which takes microseconds
    return handle


def is_training(data_dir: Path) -> bool:
    """Tells whether a live process holds the file. Where there are no locks, no training is seen."""
    try:
        with (data_dir / MARK).open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there was no training yet, or the file system has no locks
        return False
    return False
