"""The embedded Postgres: private, durable, stopped with its starter, as root and as anybody else."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from app import process
from app.embedded.places import SOCKET_PATH_LIMIT, reachable, socket_folder, try_lock
from app.embedded.postgres import SOCKET, Postgres
from app.process import EmbeddedError, User
from tests.e2e.service import wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
NOBODY = User(65534, 65534)

START = """
import sys, time
from pathlib import Path
from app.embedded.postgres import Postgres
server = Postgres(Path(sys.argv[1]), durable=False)
server.start()
print(server.pid, server.url, flush=True)
time.sleep(60 if "wait" in sys.argv else 0)
server.stop()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path below a folder that only we may enter."""
    parent = Path(tempfile.mkdtemp(prefix="cherry-test-"))
    yield parent / "postgres"
    shutil.rmtree(parent)


@pytest.fixture
def server(folder: Path) -> Iterator[Postgres]:
    started = Postgres(folder, durable=False)
    started.start()
    yield started
    started.stop()


def put(server: Postgres, value: int) -> None:
    with psycopg.connect(server.url) as db:
        db.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
        db.execute("INSERT INTO kept VALUES (%s)", [value])


def kept(server: Postgres) -> list[int]:
    with psycopg.connect(server.url) as db:
        return [row[0] for row in db.execute("SELECT value FROM kept ORDER BY value")]


def test_only_its_owner_can_reach_it(server: Postgres, folder: Path) -> None:
    with psycopg.connect(server.url) as db:
        assert db.execute("SHOW listen_addresses").fetchone() == ("",)
    sockets = Path(server.url.split("host=")[1])
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://cherry:guess@/cherry?host={sockets}")


def test_data_outlives_a_stop(server: Postgres) -> None:
    put(server, 1)
    server.stop()
    assert not server.is_running()
    server.start()
    assert kept(server) == [1]


def test_a_killed_server_starts_again_with_its_data(folder: Path) -> None:
    server = Postgres(folder)
    server.start()
    try:
        put(server, 1)
        assert server.pid
        os.kill(server.pid, signal.SIGKILL)
        wait_for(lambda: not server.is_running())
        server.start()
        assert kept(server) == [1]
    finally:
        server.stop()


def test_a_second_user_of_the_folder_attaches_and_does_not_stop_it(server: Postgres, folder: Path) -> None:
    put(server, 1)
    second = Postgres(folder, durable=False)
    second.start()
    assert second.attached
    assert kept(second) == [1]
    second.stop()
    assert server.is_running()
    assert kept(server) == [1]


def test_the_server_dies_with_its_starter(folder: Path) -> None:
    command = [sys.executable, "-c", START, str(folder), "wait"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout
        pid = int(starter.stdout.readline().split()[0])
        starter.kill()
    assert process.wait_gone(pid, 10)
    again = Postgres(folder, durable=False)
    again.start()
    again.stop()


def test_data_of_another_version_is_refused(server: Postgres, folder: Path) -> None:
    server.stop()
    (folder / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedError, match="made by Postgres 17"):
        server.start()
    (folder / "data" / "PG_VERSION").write_text("18\n")


def test_a_long_path_gets_a_short_socket_folder() -> None:
    parent = Path(tempfile.mkdtemp(prefix="cherry-test-"))
    deep = parent / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True)
    try:
        sockets = socket_folder(deep, SOCKET)
        assert len(str(sockets / SOCKET)) <= SOCKET_PATH_LIMIT
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        sockets.rmdir()
    finally:
        shutil.rmtree(parent)


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    first = try_lock(tmp_path / "lock")
    assert first
    assert try_lock(tmp_path / "lock") is None
    first.close()
    second = try_lock(tmp_path / "lock")
    assert second
    second.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_as_root_it_runs_as_an_ordinary_user_even_in_a_folder_closed_to_that_user(
    server: Postgres, folder: Path
) -> None:
    assert server.pid
    status = Path(f"/proc/{server.pid}/status").read_text()
    uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
    assert "0" not in uids
    assert not reachable(folder.parent, User(int(uids[0]), int(uids[0])))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_can_run_it() -> None:
    parent = Path(tempfile.mkdtemp(prefix="cherry-test-"))
    os.chown(parent, *NOBODY)
    try:
        python, env = python_for(NOBODY)
        command = [python, "-c", START, str(parent / "postgres")]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=env,
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert (parent / "postgres").stat().st_uid == NOBODY.uid
        assert not process.is_alive(int(done.stdout.split()[0]))
    finally:
        shutil.rmtree(parent)


def python_for(user: User) -> tuple[str, dict[str, str]]:
    """An interpreter of our version that the user can run, with our libraries."""
    packages = str(Path(psycopg.__file__).parents[1])
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{packages}", "PYTHONDONTWRITEBYTECODE": "1"}
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        try:
            tried = subprocess.run(
                [python, "-c", "import psycopg, app.embedded.postgres"],
                env=env, user=user.uid, group=user.gid, extra_groups=[], capture_output=True, cwd=ROOT,
            )  # fmt: skip
        except OSError:
            continue
        if tried.returncode == 0:
            return python, env
    pytest.skip("no interpreter that an ordinary user can run")
