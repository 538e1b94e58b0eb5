"""Starts functions in child processes with a limit of memory, within milliseconds.

The children are forked by a process of this worker (fork_server.py) that has loaded torch and transformers;
this one loads neither. No child outlives the process that started it.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

SERVER = (sys.executable, "-m", "workers.jobs.fork_server")
CODE_BYTES = 16
"""More than the digits of an exit code."""
_starting = threading.Lock()
_server: tuple[subprocess.Popen[bytes], socket.socket] | None = None


class Child:
    """Is one call of a function in a process of its own."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._code: int | None = None

    def wait(self, seconds: float) -> int | None:
        """Returns the child's exit code, negative for a signal; None if it still runs after so long."""
        if self._code is None:
            self._connection.settimeout(seconds)
            try:
                told = self._connection.recv(CODE_BYTES)
            except TimeoutError:
                return None
            except OSError:
                told = b""
            self._code = int(told) if told else -signal.SIGKILL  # its keeper was killed, and it with that
        return self._code

    def kill(self) -> int:
        """Ends the child and all it has started, unless it has ended. Returns its exit code."""
        with suppress(OSError):  # its keeper is gone
            self._connection.shutdown(socket.SHUT_WR)
        while (code := self.wait(1.0)) is None:
            pass
        self._connection.close()
        return code


def start(
    function: str,
    arguments: dict[str, Any],
    memory_bytes: int,
    scratch: str,
    environment: Mapping[str, str] | None = None,
) -> Child:
    """Calls a function of a module (`module:name`) in a new process with the environment of this one.

    What `environment` holds wins. Its temporary files lie in the folder `scratch`. Whoever starts a child
    also calls its `kill`.
    """
    request = {
        "function": function,
        "arguments": arguments,
        "environment": {**os.environ, "TMPDIR": scratch, **(environment or {})},
        "memory_bytes": memory_bytes,
    }
    ours, theirs = socket.socketpair()
    with theirs, suppress(OSError):  # the server has just died: `wait` tells
        socket.send_fds(_requests(), [b"."], [theirs.fileno()])
    with suppress(OSError):
        ours.sendall(json.dumps(request).encode() + b"\n")
    return Child(ours)


def warm_up() -> None:
    """Starts the process that children are forked from, so that the first child need not wait for it."""
    _requests()


def _requests() -> socket.socket:
    """Returns the socket to the fork server of this process, which is started if there is none."""
    global _server
    with _starting:
        if _server is None or _server[0].poll() is not None:
            ours, theirs = socket.socketpair()
            with theirs:
                process = subprocess.Popen(SERVER, stdin=theirs.fileno(), start_new_session=True)
            _server = process, ours
            atexit.register(_end, process, ours)
        return _server[1]


def _end(process: subprocess.Popen[bytes], requests: socket.socket) -> None:
    """Ends a fork server. Its children end by themselves as their connections are closed."""
    requests.close()
    process.kill()
    process.wait()
