"""Starts child processes that die with their parent, and stops them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

LAUNCHER = Path(__file__).with_name("launch.py")


class EmbeddedError(Exception):
    """Something of `cherry up` cannot run here; the message says what and what to do."""


class User(NamedTuple):
    """Whom a child runs as."""

    uid: int
    gid: int


def bound_to_parent(
    program: Sequence[str | Path],
    on_parent_death: signal.Signals = signal.SIGTERM,
    user: User | None = None,
    parent: int = 0,
    memory_bytes: int = 0,
) -> list[str]:
    """Returns a command that runs a program which gets `on_parent_death` when the thread that starts it ends.

    `parent` is the process that starts it, or 0 for any. `memory_bytes` limits its private memory
    (RLIMIT_DATA); 0 sets no limit.
    """
    uid, gid = user or (-1, -1)
    arguments = [int(on_parent_death), parent, uid, gid, memory_bytes, *program]
    return [sys.executable, "-I", "-S", str(LAUNCHER), *map(str, arguments)]


def spawn(
    program: Sequence[str | Path],
    *,
    on_parent_death: signal.Signals = signal.SIGTERM,
    user: User | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    output: IO[bytes] | int | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Starts a program in a session of its own; it gets `on_parent_death` when this thread ends.

    Call from the main thread: the kernel watches the thread that starts a child, not the process.
    """
    return subprocess.Popen(
        bound_to_parent(program, on_parent_death, user, parent=os.getpid()),
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        start_new_session=True,
        pass_fds=pass_fds,
    )


def stop(process: subprocess.Popen[bytes], *, grace: float, how: signal.Signals = signal.SIGTERM) -> int:
    """Asks a child to end, waits `grace` seconds, then kills what is left of its process group."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    kill_group(process)
    return process.wait()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kills a child started by `spawn` with all that it started in its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def kill_family(process: subprocess.Popen[bytes], *, seconds: float = 10.0) -> None:
    """Does as `kill_group` for a child whose own children have sessions of their own. Waits until all are
    gone."""
    members = [] if process.poll() is not None else descendants(process.pid)
    kill_group(process)
    for pid in members:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    for pid in members:
        wait_gone(pid, seconds)


def descendants(pid: int) -> list[int]:
    """Returns the processes started by a process, and by those in turn (Linux; elsewhere it finds none)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found, waiting = [], [pid]
    while waiting:
        born = children.get(waiting.pop(), [])
        found += born
        waiting += born
    return found


def is_alive(pid: int) -> bool:
    """Tells whether a process of that number runs (a zombie does not)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def wait_gone(pid: int, seconds: float) -> bool:
    """Waits for a process that is not our child to end. Returns False when it still runs."""
    deadline = time.monotonic() + seconds
    while is_alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
