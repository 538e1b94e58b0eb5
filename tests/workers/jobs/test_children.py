"""Functions in child processes: what they are given, how they end, and that none is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.process import is_alive, wait_gone
from tests.e2e.service import wait_for
from workers.jobs import children
from workers.jobs.children import Child
from workers.jobs.fork_server import CRASHED, OUT_OF_MEMORY

ROOT = Path(__file__).parents[3]
MUCH = 2**33
FUNCTIONS = "tests.workers.jobs.called"
PARENT = f"""
import sys, time
from workers.jobs import children
child = children.start("{FUNCTIONS}:hang", {{"path": sys.argv[1]}}, {MUCH}, "/tmp")
time.sleep(600)
"""


@contextmanager
def called(name: str, scratch: Path, memory_bytes: int = MUCH, **arguments: str) -> Iterator[Child]:
    child = children.start(f"{FUNCTIONS}:{name}", arguments, memory_bytes, str(scratch))
    try:
        yield child
    finally:
        child.kill()


def hung(path: Path) -> list[int]:
    """The process that hangs, and its child."""
    wait_for(path.exists, what="the child")
    return [int(pid) for pid in path.read_text().split()]


def test_a_child_has_this_environment_and_a_folder_for_its_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("first", "second"):  # they are forked from one process, which knows neither
        monkeypatch.setenv("CHERRY_TEST_SECRET", value)
        with called("tell", tmp_path, path=str(tmp_path / "told")) as child:
            assert child.wait(120) == 7
        assert (tmp_path / "told").read_text().split("\n") == [value, str(tmp_path), "True"]


@pytest.mark.parametrize(
    ("name", "code"),
    [("fail", CRASHED), ("die", -signal.SIGABRT), ("no_such_function", CRASHED)],
)
def test_the_end_of_a_child_is_told(tmp_path: Path, name: str, code: int) -> None:
    with called(name, tmp_path) as child:
        assert child.wait(120) == code
        assert child.wait(0.01) == code, "and told again"


def test_a_child_that_eats_memory_stops_at_its_limit(tmp_path: Path) -> None:
    with called("eat", tmp_path, memory_bytes=2**30) as child:
        assert child.wait(120) == OUT_OF_MEMORY


def test_a_killed_child_takes_with_it_what_it_has_started(tmp_path: Path) -> None:
    with called("hang", tmp_path, path=str(tmp_path / "pids")) as child:
        pids = hung(tmp_path / "pids")
        assert child.wait(0.01) is None
        assert child.kill() == -signal.SIGKILL
    assert all(wait_gone(pid, 10) for pid in pids)


def test_children_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    with subprocess.Popen([sys.executable, "-c", PARENT, str(path)], cwd=ROOT) as parent:
        pids = hung(path)
        parent.kill()
    assert all(wait_gone(pid, 20) for pid in pids)


@pytest.mark.long
def test_a_fork_server_that_was_killed_is_replaced_and_its_children_live_on(tmp_path: Path) -> None:
    with called("hang", tmp_path, path=str(tmp_path / "pids")) as first:
        pids = hung(tmp_path / "pids")
        server = children._server
        assert server is not None
        os.kill(server[0].pid, signal.SIGKILL)
        server[0].wait()
        with called("fail", tmp_path) as second:
            assert second.wait(120) == CRASHED
        assert first.wait(0.01) is None
        assert is_alive(pids[0])
