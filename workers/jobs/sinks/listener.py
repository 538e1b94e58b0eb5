"""Passes a run's numbers on to the process of a sink, and never waits for it."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import IO, Any

import structlog

from workers.jobs.sinks.base import ShownRun
from workers.training.recorders import Silent

log = structlog.get_logger(__name__)

MOST_WAITING = 5000
"""Steps that wait for a sink; further ones are left out. Chosen, not measured."""
FINISH_SECONDS = 60.0
"""How long the end of a job waits for what is still to be sent."""
FAILING_SECONDS = 5.0
"""The same where the sink has taken nothing lately."""

Warn = Callable[[str, str], None]
"""Is told of a fault: a word for its kind, and a sentence."""


class SinkListener(Silent):
    """Tells one sink. Two threads speak with its process; the run only puts its numbers into a queue."""

    def __init__(
        self,
        title: str,
        command: list[str],
        run: ShownRun,
        warn: Warn,
        failing_seconds: float = FAILING_SECONDS,
    ) -> None:
        self._failing_seconds = failing_seconds
        self._title, self._warn = title, warn
        self._waiting: queue.Queue[str | None] = queue.Queue(MOST_WAITING)
        self._told = self._done = 0
        self._is_refused = self._is_failing = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # it outlives a training that is killed, until all that came is sent
        )
        self._waiting.put(json.dumps(asdict(run), default=str))
        self._threads = [self._start(self._write), self._start(self._read)]

    @classmethod
    def of(cls, kind: str, title: str, run: ShownRun, warn: Warn) -> SinkListener:
        """Returns a listener with the process of a sink of this kind."""
        return cls(title, [sys.executable, "-m", "workers.jobs.sinks.host", kind], run, warn)

    def metrics(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        """Puts the numbers of a step where the sink's thread finds them."""
        self._told += 1
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(json.dumps({"step": step, "values": {"epoch": epoch, **values}}))

    def finish(self) -> None:
        """Sends the rest, within bounds, ends the process, and says how many steps are missing, if any."""
        started = time.monotonic()
        is_told = self._say_over()
        while self._process.poll() is None and not self._is_late(time.monotonic() - started):
            is_told = is_told or self._say_over()
            time.sleep(0.02)
        self._process.kill()
        self._process.wait()
        self._say_over()
        for thread in self._threads:
            thread.join(FAILING_SECONDS)
        missing = self._told - self._done
        if missing and not self._is_refused:
            self._warn(
                "incomplete", f"Of {self._told} steps of this attempt {missing} are missing at {self._title}."
            )

    def _say_over(self) -> bool:
        """Lets the thread that writes end after what waits; says whether there was room for that."""
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return False
        return True

    def _is_late(self, waited: float) -> bool:
        return waited > (self._failing_seconds if self._is_failing else FINISH_SECONDS)

    def _start(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name=f"sink-{self._title}", daemon=True)
        thread.start()
        return thread

    def _write(self) -> None:
        pipe = _pipe(self._process.stdin)
        with contextlib.suppress(OSError):  # the process has ended
            while (line := self._waiting.get()) is not None:
                pipe.write(line.encode() + b"\n")
                pipe.flush()
        with contextlib.suppress(OSError):
            pipe.close()

    def _read(self) -> None:
        with _pipe(self._process.stdout) as pipe:
            for line in pipe:
                try:
                    self._hear(json.loads(line))
                except Exception:  # a library may have printed there: a sink's fault is not worth a run
                    log.exception("sink_not_heard", sink=self._title)

    def _hear(self, message: Mapping[str, Any]) -> None:
        if "done" in message:
            self._done += 1
            self._is_failing = False
        elif "refused" in message:
            self._is_refused = True
            self._warn("unavailable", f"The job is not shown at {self._title}: {message['refused']}")
        elif "failing" in message:
            self._is_failing = True
            log.warning("sink_failing", sink=self._title, reason=message["failing"])
            self._warn(
                "failing",
                f"{self._title} does not take the job's numbers, which is tried again while the job goes on:"
                f" {message['failing']}",
            )


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
