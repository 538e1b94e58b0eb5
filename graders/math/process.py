"""Keeps processes that compare expressions warm, kills them at their time limit and replaces them.

The one place where the library starts processes by itself: they hold no secrets and get nothing but the two
texts. They start when the first expression needs one, and end with this process.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_SECONDS = 60.0
"""Loading sympy takes a second of CPU; on a busy machine much more of the clock."""

CLOCK_SHARE = 10
"""Clock seconds for one CPU second before a process counts as stuck."""

MAX_PROCESSES = 4
MAX_CALLS = 5_000
"""Comparisons after which a process is replaced: sympy's caches only grow."""


class ComparisonSlow(Exception):
    """Says that the comparison ran past its limit (or out of memory) and was killed."""


class ComparerBroken(Exception):
    """Says that no process could be started, and why."""


class _Process:
    """Holds one worker and its pipes."""

    def __init__(self) -> None:
        self.calls = 0
        command = [sys.executable, "-P", "-c", "from graders.math.worker import main; main()"]
        root = str(Path(__file__).resolve().parents[2])
        self.child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": root, "PATH": os.defpath, "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        try:
            first = self._line(START_SECONDS)
        except ComparisonSlow:
            self.end()
            raise ComparerBroken("the process that compares expressions did not start in time") from None
        if first != b"ready\n":
            self.end()
            raise ComparerBroken(
                "the process that compares expressions cannot start: is math-verify installed?"
            )

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Sends a request and returns the result.

        It may take `seconds` of CPU, so that a busy machine changes no grade, or many more of the clock.
        Raises `ComparisonSlow`, after which the process must be ended.
        """
        assert self.child.stdin is not None
        self.calls += 1
        try:
            self.child.stdin.write(json.dumps({**request, "seconds": seconds}).encode() + b"\n")
            self.child.stdin.flush()
        except OSError:
            raise ComparisonSlow from None
        line = self._line(CLOCK_SHARE * seconds + 5)
        if not line.endswith(b"\n"):
            raise ComparisonSlow  # it died: out of time, of memory, or of stack
        result: dict[str, Any] = json.loads(line)
        return result

    def _line(self, seconds: float) -> bytes:
        assert self.child.stdout is not None
        ready, _, _ = select.select([self.child.stdout], [], [], seconds)
        if not ready:
            raise ComparisonSlow
        return self.child.stdout.readline()

    def end(self) -> None:
        """Kills the process and closes its pipes."""
        self.child.kill()
        self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue  # what was not written is of no use any more


@dataclass
class Comparers:
    """Pools such processes. It is safe to use from many threads, and after a fork."""

    idle: list[_Process] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    places: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(MAX_PROCESSES))
    owner: int = field(default_factory=os.getpid)

    def compare(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Returns a process's result for a request, in at most `seconds` of CPU.

        Raises `ComparisonSlow` or `ComparerBroken`.
        """
        with self.places:
            process = self._take()
            try:
                result = process.ask(request, seconds)
            except BaseException:
                process.end()
                raise
            self._give_back(process)
            return result

    def _take(self) -> _Process:
        with self.lock:
            process = self.idle.pop() if self.idle else None
        return process or _Process()

    def _give_back(self, process: _Process) -> None:
        if process.calls >= MAX_CALLS:
            process.end()
            return
        with self.lock:
            self.idle.append(process)

    def close(self) -> None:
        """Ends every process; the next comparison starts new ones."""
        with self.lock:
            ended, self.idle = self.idle, []
        for process in ended:
            process.end()


_pool = Comparers()


def comparers() -> Comparers:
    """Returns the pool of this process; a forked child gets one of its own."""
    global _pool
    if _pool.owner != os.getpid():
        _pool = Comparers()
    return _pool


@atexit.register
def _end_processes() -> None:
    if _pool.owner == os.getpid():
        _pool.close()
