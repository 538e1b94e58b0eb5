"""Makes what is left of a plan, for as long as a chunk may take."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.stability import results
from benchmarks.stability.plan import Run
from benchmarks.stability.worker import START

BENCHMARKS = Path(__file__).parents[1]
RUN_LIMIT = 1800.0
"""Seconds after which a run counts as hung: the longest, of SmolLM2, takes about 400."""

Make = Callable[[Run], dict[str, Any]]


class Worker:
    """A process that makes runs with the engine of a checkout. It is started anew after it died or hung."""

    def __init__(self, build: Path) -> None:
        self.build = build
        self._process: subprocess.Popen[str] | None = None

    def make(self, run: Run) -> dict[str, Any]:
        """Returns the result of a run."""
        if self._process is None or self._process.poll() is not None:
            self._process = self._start()
        sent, answers = self._process.stdin, self._process.stdout
        assert sent is not None
        assert answers is not None
        sent.write(run.id + "\n")
        sent.flush()
        if not select.select([answers], [], [], RUN_LIMIT)[0]:
            self.close()
            return {"status": "hung", "said": f"no result after {RUN_LIMIT:.0f} s"}
        line = answers.readline()
        if not line:
            return {"status": "died", "said": f"the process ended with {self._process.wait()}"}
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        python = self.build / ".venv" / "bin" / "python"
        return subprocess.Popen(
            [str(python), "-c", START, str(BENCHMARKS)],
            cwd=self.build,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def make_chunk(
    runs: Sequence[Run],
    path: Path,
    make: Make,
    *,
    facts: dict[str, Any],
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Makes the runs that the file lacks, in order, and starts none after `seconds`.

    Returns how many are left.
    """
    end = clock() + seconds
    with results.appending(path) as file:
        done = results.read(path)
        waiting = [run for run in runs if run.id not in done]
        for i, run in enumerate(waiting):
            if clock() >= end:
                return len(waiting) - i
            result = {"id": run.id, **facts, **make(run)}
            results.append(file, result)
            print(_line(run, result, len(done) + i + 1), file=sys.stderr, flush=True)
    return 0


def commit_of(build: Path) -> str:
    """Returns what a checkout is at, with a + where files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(build), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    dirty = git("status", "--porcelain", "--untracked-files=no", "--", "workers", "methods", "graders")
    return git("rev-parse", "--short", "HEAD") + ("+" if dirty else "")


def _line(run: Run, result: dict[str, Any], count: int) -> str:
    said = result.get("verdict", result["status"])
    return f"{count:4d} {run.id}: {said}, {result.get('steps', '-')} steps, {result.get('seconds', 0):.1f} s"
