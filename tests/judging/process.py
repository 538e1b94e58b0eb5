"""Starts a judge as a process, for as long as a test needs it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.judging.behaviours import Behaviour

ROOT = Path(__file__).parents[2]


class RunningJudge(NamedTuple):
    """Says where a judge can be asked."""

    port: int

    @property
    def base_url(self) -> str:
        """Its address, as an entry of `CHERRY_JUDGES` has it."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def calls(self) -> int:
        """How often it was asked so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/calls") as response:
            return int(json.load(response)["calls"])


@contextmanager
def running_judge(
    behaviour: Behaviour = "exact",
    *,
    worth: str = "words:play",
    delay_ms: float | None = None,
    port: int = 0,
    seed: int = 0,
    keep_alive: bool = False,
) -> Iterator[RunningJudge]:
    """Yields a judge that runs in a process of its own, and ends it. One that keeps connections alive is as
    servers are; a test would have to close them."""
    options = {"behaviour": behaviour, "worth": worth, "port": port, "seed": seed}
    if delay_ms is not None:
        options["delay-ms"] = delay_ms
    command = [
        sys.executable,
        "-m",
        "tests.judging",
        *(f"--{name}={value}" for name, value in options.items()),
        *(["--keep-alive"] if keep_alive else []),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield RunningJudge(int(process.stdout.readline()))
        finally:
            process.terminate()


def settings_of(**judges: RunningJudge) -> dict[str, Any]:
    """Returns what `CHERRY_JUDGES` says of these judges, by the names that graders use."""
    return {name: {"base_url": judge.base_url} for name, judge in judges.items()}
