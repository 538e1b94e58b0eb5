"""Supervises one process: starts it, notices its end, starts it again with a growing pause."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from app import process
from app.process import EmbeddedError

log = structlog.get_logger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
STEADY_SECONDS = 60.0
"""After running this long a process is well again, and its next restart comes at once."""


class Supervisable(Protocol):
    """What can be supervised."""

    @property
    def pid(self) -> int | None: ...

    def start(self) -> None: ...

    def is_running(self) -> bool: ...

    def stop(self) -> None: ...


class Program:
    """A program of ours, with its own log file."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log_path: Path,
        grace: float,
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """`env` is added to the environment of this process."""
        self._command = command
        self._log_path = log_path
        self._grace = grace
        self._pass_fds = pass_fds
        self._env = env or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        with self._log_path.open("ab") as output:
            env = {**os.environ, "PYTHONUNBUFFERED": "1", **self._env}
            self._process = process.spawn(self._command, env=env, output=output, pass_fds=self._pass_fds)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        if self._process:
            process.stop(self._process, grace=self._grace)
            self._process = None

    def ask_to_stop(self) -> None:
        """Begins to stop without waiting."""
        if self._process and self._process.poll() is None:
            self._process.terminate()

    def clear_away(self) -> None:
        """Kills what an ended program may have left behind; and the program, where it answers no more."""
        if self._process:
            process.kill_group(self._process)
            self._process.wait()


class Supervised:
    """A server that is kept running until `stop`."""

    def __init__(self, name: str, server: Supervisable) -> None:
        self.name = name
        self.server = server
        self._started_at = 0.0
        self._pause = 0.0
        self._next_start = 0.0

    def start(self) -> None:
        self.server.start()
        self._started_at = time.monotonic()

    def ask_to_stop(self) -> None:
        """Lets programs of ours stop side by side. Servers stay until those are gone."""
        if isinstance(self.server, Program):
            self.server.ask_to_stop()

    def keep_running(self) -> bool:
        """Starts the server again if it ended and its pause is over. Returns True if something changed."""
        now = time.monotonic()
        if self.server.is_running():
            return False
        if self._started_at:
            if now - self._started_at > STEADY_SECONDS:
                self._pause = 0.0
            log.warning("process_ended", process=self.name, restart_in=self._pause)
            self._started_at, self._next_start = 0.0, now + self._pause
            self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
        if now < self._next_start:
            return False
        try:
            if isinstance(self.server, Program):
                self.server.clear_away()
            self.start()
        except EmbeddedError as problem:
            log.error("process_not_started", process=self.name, problem=str(problem))
            self._next_start = now + self._pause
            self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
        return True
