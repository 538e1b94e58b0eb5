"""Functions that tests have called in children (workers/jobs/children.py)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def tell(path: str) -> int:
    """Writes what it finds: its setting, the folder of its temporary files, whether torch is loaded."""
    found = (os.environ["CHERRY_TEST_SECRET"], tempfile.gettempdir(), str("torch" in sys.modules))
    Path(path).write_text("\n".join(found))
    return 7


def eat() -> int:
    eaten = [bytearray(2**24) for _ in range(2**10)]  # 16 GiB
    return len(eaten)


def fail() -> int:
    raise ValueError("it fails")


def die() -> int:
    os.abort()


def hang(path: str) -> int:
    """Hangs with a child of its own, in a session of that one's own; writes who they are."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(path).with_suffix(".new").write_text(f"{os.getpid()} {child.pid}")
    Path(path).with_suffix(".new").rename(path)
    while True:
        time.sleep(0.001)
