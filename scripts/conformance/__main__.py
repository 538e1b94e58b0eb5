"""`python -m scripts.conformance [--only TEXT] [--folder FOLDER] [FILES OF THE SUITE]`

Fetches the source distribution of the installed `openai` (its wheel has no tests) and a virtual environment
for it, both kept in a folder; starts a database of its own and the API in conformance mode; runs the suite.
The exit status is pytest's.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from app.embedded.postgres import Postgres

ROOT = Path(__file__).parents[2]
TEST_NEEDS = (
    *("pytest>=9,<10", "pytest-asyncio>=1.5,<2", "pytest-xdist>=3.8,<4", "inline-snapshot>=0.36,<0.37"),
    *("rich", "trio", "httpx<1", "nest-asyncio", "numpy", "pandas", "pillow", "botocore", "time-machine"),
)
SUITE = (
    "tests/api_resources/fine_tuning",
    "tests/api_resources/test_files.py",
    "tests/api_resources/test_uploads.py",
    "tests/api_resources/uploads",
    "tests/api_resources/test_models.py",
    "tests/api_resources/test_webhooks.py",
    "tests/api_resources/webhooks",
    "tests/lib/test_fine_tuning_positional_arguments.py",
    "tests/api_resources/chat",
    "tests/api_resources/test_completions.py",
    "tests/api_resources/test_responses.py",
    "tests/api_resources/responses",
    "tests/api_resources/test_evals.py",
    "tests/api_resources/evals",
    "tests/api_resources/admin/organization/test_admin_api_keys.py",
    "tests/api_resources/admin/organization/test_projects.py",
    "tests/api_resources/admin/organization/projects/test_api_keys.py",
    "tests/api_resources/admin/organization/projects/test_service_accounts.py",
    "tests/api_resources/admin/organization/projects/service_accounts",
)
"""The files of the suite for what this service has."""
LEFT_OUT = "not compact"
"""Compacting a conversation is for models that can read what was left of one; those here cannot."""


PREPARE = """
from app.conformance.router import mark_disposable
from app.db import unit_of_work
from app.migrate import upgrade
from app.settings import get_settings
upgrade(get_settings().database_url)
with unit_of_work() as db:
    mark_disposable(db)
"""
NO_CHANGES: Mapping[str, str] = {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="as pytest's -k")
    parser.add_argument("--folder", type=Path, default=ROOT / ".conformance", help="kept between runs")
    parser.add_argument("tests", nargs="*", default=SUITE, help="files of the client's suite")
    arguments = parser.parse_args()
    arguments.folder.mkdir(exist_ok=True)
    sources = fetch_client(arguments.folder)
    python = make_environment(arguments.folder)
    with service() as url:
        only = f"({arguments.only}) and {LEFT_OUT}" if arguments.only else LEFT_OUT
        return run_suite(python, sources, url, arguments.tests, only)


def fetch_client(folder: Path) -> Path:
    """The unpacked source distribution of the client that is installed here."""
    name = f"openai-{version('openai')}"
    if not (folder / name).is_dir():
        print(f"Fetching the sources of {name} ...", flush=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "openai"]
        subprocess.run([*pip, "--dest", str(folder), name.replace("-", "==")], check=True)
        with tarfile.open(folder / f"{name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return folder / name


def make_environment(folder: Path) -> Path:
    """A virtual environment with the client and what its tests need; its Python."""
    python = folder / "venv" / "bin" / "python"
    stamp = folder / f"installed-{version('openai')}"
    if not stamp.exists():
        print("Installing what the client's tests need ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        client = f"openai[aiohttp]=={version('openai')}"
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", client, *TEST_NEEDS], check=True)
        stamp.touch()
    return python


@contextmanager
def service(prepare: str = PREPARE, changes: Mapping[str, str] = NO_CHANGES) -> Iterator[str]:
    """The API in conformance mode on a free port, and a sampler, over a database that is gone afterwards.

    `prepare` is the program that readies the database, `changes` other settings.
    """
    with tempfile.TemporaryDirectory(prefix="cherry-conformance-") as name, socket.socket() as taken:
        folder = Path(name)
        folder.chmod(0o755)
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.close()
        server = Postgres(folder / "postgres", durable=False)
        server.start()
        running: list[subprocess.Popen[bytes]] = []
        try:
            env = {**_environment(folder, server.url, port), **changes}
            subprocess.run([sys.executable, "-c", prepare], cwd=ROOT, env=env, check=True)
            for part, its_port in (("sampler", port + 1), ("api", port)):
                command = [sys.executable, "-m", "app.cli.main", part, "--port", str(its_port)]
                running.append(subprocess.Popen(command, cwd=ROOT, env=env))
                _wait_for(f"http://127.0.0.1:{its_port}", running[-1])
            yield f"http://127.0.0.1:{port}"
        finally:
            for process in reversed(running):
                process.terminate()
                process.wait(30)
            server.stop()


def _environment(folder: Path, database_url: str, port: int) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CHERRY_") and k != "DATABASE_URL"}
    return {
        **kept,
        "DATABASE_URL": database_url,
        "CHERRY_BROKER_URL": f"filesystem://{folder}/broker",
        "CHERRY_DATA_DIR": str(folder / "data"),
        "CHERRY_CONFORMANCE": "1",
        "CHERRY_SECRET_KEY": "conformance " * 4,
        "CHERRY_OUTBOUND_ALLOW": "127.0.0.1",
        "CHERRY_OUTBOUND_ALLOW_HTTP": "1",
        "CHERRY_OUTBOUND_PORTS": str(port),
        "CHERRY_LOG_LEVEL": "warning",
        "CHERRY_SAMPLER_URL": f"http://127.0.0.1:{port + 1}",
        "CHERRY_SAMPLER_TOKEN": "conformance",
        "CHERRY_SAMPLER_MODELS": "4",
    }


def _wait_for(url: str, api: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{url}/healthz", timeout=5)
            return
        except (urllib.error.URLError, ConnectionError):
            if api.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("A part of the service did not start.") from None
            time.sleep(0.1)


def run_suite(python: Path, sources: Path, url: str, tests: list[str], only: str) -> int:
    """Run the client's tests one after the other: each starts with a reset."""
    env = {
        **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        "TEST_API_BASE_URL": f"{url}/v1",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    options = [
        "-q",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        "-p",
        "plugin",
        "--durations=0",
        "--durations-min=5",
    ]
    command = [str(python), "-m", "pytest", *options, *(["-k", only] if only else []), *tests]
    return subprocess.run(command, cwd=sources, env=env).returncode


if __name__ == "__main__":
    sys.exit(main())
