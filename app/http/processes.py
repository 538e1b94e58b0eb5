"""Runs several processes of the API behind one port."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from types import FrameType

import structlog

from app import process

log = structlog.get_logger(__name__)

GLANCE_SECONDS = 0.2
RESTART_PAUSE = 1.0


def serve_in_processes(count: int, listener: socket.socket, *, grace: float) -> None:
    """Accepts from one listening socket in so many processes, until SIGTERM or SIGINT.

    One that ends is started again; none outlives this process. Call it from the main thread.
    """
    asked_to_stop = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        asked_to_stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    listener.set_inheritable(True)
    running = {number: _start(listener) for number in range(count)}
    while not asked_to_stop.wait(GLANCE_SECONDS):
        _replace_ended(running, listener, asked_to_stop)
    _stop_all(running, grace)


def _start(listener: socket.socket) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "app.cli.main", "api", "--fd", str(listener.fileno())]
    return process.spawn(command, pass_fds=[listener.fileno()])


def _replace_ended(
    running: dict[int, subprocess.Popen[bytes]], listener: socket.socket, asked_to_stop: threading.Event
) -> None:
    for number, child in running.items():
        if child.poll() is not None and not asked_to_stop.is_set():
            log.error("api_process_ended", process=child.pid, exit_code=child.returncode)
            asked_to_stop.wait(RESTART_PAUSE)
            running[number] = _start(listener)


def _stop_all(running: Mapping[int, subprocess.Popen[bytes]], grace: float) -> None:
    """Stops them side by side: each lets its requests end."""
    for child in running.values():
        if child.poll() is None:
            child.terminate()
    for child in running.values():
        process.stop(child, grace=grace)
