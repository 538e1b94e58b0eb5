"""The same parts apart, with a Postgres and a broker from elsewhere, as docker compose runs them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import OpenAI

from app.embedded.postgres import Postgres
from app.embedded.supervisor import listening_socket
from app.embedded.valkey import Valkey, server_binary
from tests.e2e.service import GRADER, cherry, environment, hyperparameters, wait_for, write_rows
from tests.tiny_model import make_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@contextmanager
def program(*arguments: str, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A `cherry` command that runs until the test is over."""
    process = subprocess.Popen([sys.executable, "-m", "app.cli.main", *arguments], env=env)
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(60) in (0, -15)


def free_port() -> int:
    with listening_socket("127.0.0.1", 0, 0) as listener:
        return int(listener.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.long
def test_migrate_api_and_one_worker_run_a_job(postgres: Postgres, database_url: str, tmp_path: Path) -> None:
    binary = server_binary()
    assert binary
    with tempfile.TemporaryDirectory(prefix="cherry-test-") as folder:
        valkey = Valkey(Path(folder) / "valkey", binary)
        valkey.start()
        port = free_port()
        env = environment(
            DATABASE_URL=database_url, CHERRY_BROKER_URL=valkey.url, CHERRY_DATA_DIR=str(tmp_path / "data")
        )
        try:
            migrated = cherry("migrate", env=env)
            assert migrated.returncode == 0, migrated.stderr
            key = cherry("keys", "create", env=env).stdout.strip()
            model = make_tiny_model(Path(folder) / "tiny")
            assert cherry("models", "add", "tiny", str(model), env=env).returncode == 0
            with program("api", "--port", str(port), env=env), program("worker", env=env):
                wait_for(lambda: answers(f"http://127.0.0.1:{port}/readyz"), what="the API")
                client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key)
                assert "cherry-nano" in {known.id for known in client.models.list()}
                run_job(client, write_rows(tmp_path / "train.jsonl"))
        finally:
            valkey.stop()


def run_job(client: OpenAI, rows: Path) -> None:
    started = time.monotonic()
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=client.files.create(file=rows, purpose="fine-tune").id,
        method={  # type: ignore[arg-type]
            "type": "reinforcement",
            "reinforcement": {"grader": GRADER, "hyperparameters": hyperparameters()},
        },
    )

    def status() -> str | None:
        now = client.fine_tuning.jobs.retrieve(job.id).status
        return now if now in ("succeeded", "failed", "cancelled") else None

    assert wait_for(status, what="the job") == "succeeded", time.monotonic() - started
