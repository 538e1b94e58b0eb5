"""Forks child processes that have loaded already what takes seconds: `python -m workers.jobs.fork_server`.

Its stdin is a socket over which workers/jobs/children.py sends the connection of each child to be. For each
it forks a keeper, which reads from the connection what to run, forks the child, and tells its exit code. A
child is killed, with all that it has started in its session, as soon as the other end of its connection is
closed: on purpose, or because the worker is gone. The server ends when nobody holds the other end of its
stdin.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from app.devices.claims import join
from app.launch import die_with_parent

PRELOADED = (
    "transformers.models.auto.tokenization_auto",
    "workers.jobs.validation",
    "workers.training.model.grammar",
    "workers.training.prompts",
    "workers.tuning.examples",
)
"""What validations import, together four seconds of one core."""
OUT_OF_MEMORY = 79
"""The exit code of a child that asked for more memory than its limit; `Exit` in attempt.py has the others."""
CRASHED = 1


def serve(requests: socket.socket) -> None:
    """Forks a keeper for every connection that comes, until no more can come."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers: they speak for themselves
    while True:
        message, connections, _, _ = socket.recv_fds(requests, 1, 1)
        if not message:
            return
        for number in connections:
            with socket.socket(fileno=number) as connection:
                if os.fork() == 0:
                    requests.close()
                    _end_with(partial(keep, connection))


def keep(connection: socket.socket) -> int:
    """Runs what the connection asks for in a child of its own, and tells how that has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked = _line(connection)
    if not asked:  # the worker has ended
        return 0
    ended, still_alive = os.pipe()
    keeper = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(ended)
        connection.close()
        die_with_parent(ctypes.CDLL(None, use_errno=True), signal.SIGKILL, keeper)
        _end_with(partial(run, **json.loads(asked)))
    os.close(still_alive)
    select.select([ended, connection.fileno()], [], [])
    _kill_session(child)
    _, status = os.waitpid(child, 0)
    with suppress(OSError):  # nobody is interested
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    return 0


def _line(connection: socket.socket) -> bytes:
    """Reads one line; nothing if the other side closes before its end."""
    read = bytearray()
    while not read.endswith(b"\n"):
        if not (more := connection.recv(65536)):
            return b""
        read += more
    return bytes(read)


def _kill_session(leader: int) -> None:
    """Kills what is left of a child and of what it started. Its number is its own until it is waited for."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(leader, signal.SIGKILL)  # it had no session of its own yet


def run(function: str, arguments: dict[str, Any], environment: dict[str, str], memory_bytes: int) -> int:
    """Calls `module:name` in this process, with limits, and returns what it returns: an exit code."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # it is looked up anew
    join()
    module, _, name = function.partition(":")
    try:
        code: int = getattr(importlib.import_module(module), name)(**arguments)
    except MemoryError:
        return OUT_OF_MEMORY
    return code


def _end_with(act: Callable[[], int]) -> None:
    """Ends this process with the code that `act` returns; nothing of what it was forked from goes on."""
    code = CRASHED
    try:
        code = act()
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    with socket.socket(fileno=os.dup(0)) as inherited:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for preloaded in PRELOADED:
            importlib.import_module(preloaded)
        serve(inherited)
