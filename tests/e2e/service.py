"""Starting `cherry up` for tests, as a user does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from openai import OpenAI

CHERRY = [sys.executable, "-m", "app.cli.main"]
ROOT = Path(__file__).parents[2]
GRADER = {
    "type": "string_check",
    "name": "has_letter",
    "operation": "ilike",
    "input": "{{sample.output_text}}",
    "reference": "{{item.letter}}",
}


class Service(NamedTuple):
    """A running `cherry up` and what it printed."""

    process: subprocess.Popen[str]
    url: str
    api_key: str
    folder: Path

    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=self.api_key)

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return state


def environment(**extra: str) -> dict[str, str]:
    """This environment without settings of other tests."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CHERRY_") and k != "DATABASE_URL"}
    return {**kept, "CHERRY_TRAINER_THREADS": "1", **extra}


@contextmanager
def running_service(folder: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Service]:
    """`cherry up --json` until it is ready; stopped at the end if the test has not done so."""
    command = [*CHERRY, "up", "--data", str(folder), "--json", *options]
    process = subprocess.Popen(
        command, cwd=ROOT, env=env or environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        said = json.loads(line)
        yield Service(process, said["url"], said["api_key"], folder)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def cherry(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*CHERRY, *arguments], cwd=ROOT, env=env or environment(), capture_output=True, text=True, timeout=120
    )


def write_rows(path: Path, n: int = 4) -> Path:
    """A data set that the tiny model can be trained on."""
    letters = "aeiourstln"
    rows = (
        {"messages": [{"role": "user", "content": f"Say {letter}."}], "letter": letter}
        for letter in letters[:n]
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def hyperparameters(**changed: Any) -> dict[str, Any]:
    """A short run."""
    return {
        "n_epochs": 2,
        "batch_size": 2,
        "eval_interval": 2,
        "group_size": 4,
        "max_completion_tokens": 8,
        "lora_rank": 2,
        **changed,
    }


def wait_for(condition: Callable[[], Any], *, seconds: float = 180.0, what: str = "it") -> Any:
    """Poll until the condition gives something true."""
    deadline = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)
