"""The API as a process of its own over a database of its own, for measuring."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2 as httpx

from app.embedded.postgres import Postgres
from app.embedded.supervisor import listening_socket

READY_SECONDS = 60.0
CHERRY = [sys.executable, "-m", "app.cli.main"]


class Service(NamedTuple):
    """A running API. `environment` has the settings that it was given."""

    url: str
    pid: int
    key: str
    environment: Mapping[str, str]
    folder: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextmanager
def running_service(**settings: str) -> Iterator[Service]:
    """`cherry api` over an embedded Postgres; all of it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="cherry-bench-") as place:
        folder = Path(place)
        postgres = Postgres(folder / "postgres")
        postgres.start()
        try:
            env = {
                "DATABASE_URL": postgres.url,
                "CHERRY_BROKER_URL": f"filesystem://{folder}/broker",
                "CHERRY_DATA_DIR": str(folder / "data"),
                **settings,
            }
            _cherry(env, "migrate")
            key = _cherry(env, "keys", "create")
            with running_api(env) as (url, pid):
                yield Service(url, pid, key, env, folder)
        finally:
            postgres.stop()


@contextmanager
def running_api(env: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """`cherry api` as a process of its own: its URL and its number."""
    with listening_socket("127.0.0.1", 0, 0) as listener:
        port = listener.getsockname()[1]
    command = [*CHERRY, "api", "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, **env, "CHERRY_LOG_LEVEL": "warning"})
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not _is_ready(url):
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit("The API did not start.")
            time.sleep(0.1)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(30)


def _cherry(env: Mapping[str, str], *arguments: str) -> str:
    """Run one command to its end; what it printed."""
    command = [*CHERRY, *arguments]
    done = subprocess.run(command, env={**os.environ, **env}, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
