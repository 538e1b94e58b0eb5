"""One process of an environment, seen from the worker: requests go out as lines of JSON, answers come back.

Whatever it does, it costs no more than the replies that are waited for: it may hang, crash, answer no JSON or
no end of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from pathlib import Path
from typing import Any

import structlog

from app.table_settings import EnvironmentEntry
from workers.environments.named.surroundings import variables

log = structlog.get_logger(__name__)

HERE = Path(__file__).parent
MAX_LINE_BYTES = 64 * 2**20
"""Longest line that is read of a process. Its own side stops at 1 MB, or 1 MB a row where rows are asked for;
one that passes this does not keep to the protocol.
"""
PING_SECONDS = 10.0
"""How long a process whose reply does not come may take to show that it lives. Chosen, not measured."""
LEAVE_SECONDS = 5.0
"""How long its end is waited for. Chosen, not measured."""
SEND_SECONDS = 30
"""How long a process may leave unread what it is sent. Chosen, not measured."""
MAX_SAID = 2000
"""Lines that a process may write into the log. Chosen, not measured."""
SAID_BYTES = 1000
"""Longest of them; a longer one becomes several."""


class ProcessFailed(Exception):
    """Says why a process did not reply.

    Attributes:
        is_gone: it has ended, or was ended: no other reply comes of it.
    """

    def __init__(self, message: str, *, is_gone: bool = False) -> None:
        super().__init__(message)
        self.is_gone = is_gone


class EnvironmentProcess:
    """Is a process under way. It ends with `close`, and with the process that has started it."""

    def __init__(self, name: str, entry: EnvironmentEntry, hidden: list[str]) -> None:
        self._name = name
        self._answers: dict[int, Future[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._numbers = 0
        self._end = ""
        self._link, theirs = socket.socketpair()
        self._link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", SEND_SECONDS, 0))
        lifeline, self._lifeline = os.pipe()
        folder = Path(tempfile.mkdtemp(prefix="cherry-environment-"))
        plan = {"folder": str(folder), "memory_bytes": entry.memory_mb * 2**20, "hidden": hidden}
        program = [entry.python or sys.executable, "-B", str(HERE / "host.py"), str(theirs.fileno())]
        guard = [sys.executable, "-I", "-S", str(HERE / "guard.py"), str(lifeline), json.dumps(plan)]
        self._guard = subprocess.Popen(
            [*guard, *program],
            env=variables(entry, folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lifeline, theirs.fileno()],
        )
        os.close(lifeline)
        theirs.close()
        self._said = ""
        self._listener = threading.Thread(target=self._listen, name=f"environment-{name}", daemon=True)
        self._listener.start()
        threading.Thread(target=self._read, name=f"environment-{name}", daemon=True).start()

    @property
    def end(self) -> str:
        """Returns why no reply comes of it any more; "" while it lives."""
        return self._end

    def ask(self, what: str, seconds: float, **fields: Any) -> dict[str, Any]:
        """Returns what is replied to a request. Raises `ProcessFailed`."""
        number, answer = self._send(what, fields)
        try:
            told = answer.result(seconds)
        except NotInTime:
            self._forget(number)
            self._see_whether_it_lives(what)
            raise ProcessFailed(f"It did not answer within {seconds:g} seconds.") from None
        if (fault := told.get("error")) is not None:
            raise ProcessFailed(str(fault))
        found = told.get("ok")
        if not isinstance(found, dict):
            raise ProcessFailed("It answered neither 'ok' nor 'error'.")
        return found

    def close(self, why: str = "It was ended.") -> None:
        """Ends it with all that it has started."""
        with self._lock:
            self._end = self._end or why
            lifeline, self._lifeline = self._lifeline, -1
        if lifeline >= 0:
            os.close(lifeline)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.wait(LEAVE_SECONDS)
        self._over(why)

    def _send(self, what: str, fields: dict[str, Any]) -> tuple[int, Future[dict[str, Any]]]:
        answer: Future[dict[str, Any]] = Future()
        with self._lock:
            if self._end:
                raise ProcessFailed(self._end, is_gone=True)
            self._numbers += 1
            number = self._numbers
            self._answers[number] = answer
        line = json.dumps({"id": number, "do": what, **fields}).encode() + b"\n"
        try:
            with self._sending:
                self._link.sendall(line)
        except BlockingIOError:  # a part of the line may have left
            self.close(f"It hung: what it was sent stayed unread for {SEND_SECONDS} seconds.")
        except OSError:
            pass  # the thread that reads finds out too, and says why
        return number, answer

    def _forget(self, number: int) -> None:
        with self._lock:
            self._answers.pop(number, None)

    def _see_whether_it_lives(self, what: str) -> None:
        """Ends a process that answers nothing at all, after one reply did not come in time."""
        if what == "ping":
            return
        try:
            self.ask("ping", PING_SECONDS)
        except ProcessFailed as failed:
            if not failed.is_gone:
                self.close("It hung: nothing was answered any more.")

    def _read(self) -> None:
        """Takes answers, until there is nothing to read or no sense in it."""
        why = ""
        with self._link, self._link.makefile("rb") as lines:
            try:
                while line := lines.readline(MAX_LINE_BYTES):
                    self._take(line)
            except OSError:
                pass
            except ValueError as problem:  # recursion, JSON, text
                why = f"It does not keep to the protocol: {problem}"
            except RecursionError:
                why = "It does not keep to the protocol: an answer is nested too deep."
        if why:
            self.close(why)
        else:
            self._over(self._last_words())

    def _take(self, line: bytes) -> None:
        if not line.endswith(b"\n"):
            raise ValueError(f"a line is longer than {MAX_LINE_BYTES} bytes, or was broken off.")
        told = json.loads(line)
        if not isinstance(told, dict) or not isinstance(told.get("id"), int):
            raise ValueError(f"an answer has no 'id': {line[:100]!r}")
        with self._lock:
            answer = self._answers.pop(told["id"], None)
        if answer is not None:
            answer.set_result(told)

    def _last_words(self) -> str:
        try:
            code = self._guard.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            return "It closed its connection."
        self._listener.join(LEAVE_SECONDS)
        hint = ", perhaps for lack of memory" if code in (128 + 9, 128 + 6, 128 + 11) else ""
        said = f" The last that it wrote: {self._said}" if self._said else ""
        return f"Its process ended with code {code}{hint}.{said}"

    def _over(self, why: str) -> None:
        with self._lock:
            self._end = self._end or why
            waiting, self._answers = self._answers, {}
        for answer in waiting.values():
            answer.set_exception(ProcessFailed(self._end, is_gone=True))

    def _listen(self) -> None:
        """Passes on what the process prints, as far as that is bounded."""
        assert self._guard.stdout is not None
        left = MAX_SAID
        with self._guard.stdout as lines:
            while line := lines.readline(SAID_BYTES):
                said = line.decode("utf-8", "replace").rstrip()
                self._said = said or self._said
                if left > 0:
                    log.info("environment_said", environment=self._name, said=said)
                left -= 1
        if left < 0:
            log.warning("environment_said_too_much", environment=self._name, lines=MAX_SAID - left)
