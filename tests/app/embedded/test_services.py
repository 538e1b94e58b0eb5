"""Keeping a process running, and its parts."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from app import process
from app.embedded.services import Program, Supervised
from app.embedded.supervisor import listening_socket
from app.process import EmbeddedError
from tests.e2e.service import wait_for


def test_a_program_that_ends_is_started_again_with_growing_pauses(tmp_path: Path) -> None:
    supervised = Supervised("broken", Program(["false"], log_path=tmp_path / "log", grace=1))
    supervised.start()
    pids = set()
    until = time.monotonic() + 1.4
    while time.monotonic() < until:
        supervised.keep_running()
        pids.add(supervised.server.pid)
        time.sleep(0.02)
    assert 2 <= len(pids) <= 4
    supervised.server.stop()


def test_stopping_leaves_nothing_of_the_group(tmp_path: Path) -> None:
    child = tmp_path / "pid"
    script = (
        "import subprocess, time; p = subprocess.Popen(['sleep', '60']); "
        f"open({str(child)!r}, 'w').write(str(p.pid)); time.sleep(60)"
    )
    program = Program([sys.executable, "-c", script], log_path=tmp_path / "log", grace=1)
    program.start()
    pid = int(wait_for(lambda: child.exists() and child.read_text()))
    program.stop()
    assert process.wait_gone(pid, 5)


def test_a_program_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    program = Program([sys.executable, "-c", script], log_path=tmp_path / "log", grace=0.2)
    program.start()
    wait_for(lambda: "on" in (tmp_path / "log").read_text())
    started = time.monotonic()
    program.stop()
    assert time.monotonic() - started < 5


def test_a_program_that_answers_no_more_is_cleared_away_before_the_next_starts(tmp_path: Path) -> None:
    program = Program(["sleep", "60"], log_path=tmp_path / "log", grace=1)
    program.start()
    first = program.pid
    assert first
    program.clear_away()
    assert not Path(f"/proc/{first}").exists()
    program.start()
    assert program.is_running()
    program.stop()


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = (
        "import time; from app import process; "
        f"p = process.spawn(['sleep', '60']); open({str(note)!r}, 'w').write(str(p.pid)); time.sleep(60)"
    )
    parent = process.spawn([sys.executable, "-c", script], cwd=Path(__file__).parents[3])
    pid = int(wait_for(lambda: note.exists() and note.read_text()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert process.wait_gone(pid, 5)


def test_a_taken_port_is_refused_if_asked_for_and_passed_over_if_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match=f"port {port}: Address already in use"):
            listening_socket("127.0.0.1", port, 8000)
        with listening_socket("127.0.0.1", None, port) as other:
            assert other.getsockname()[1] != port
