"""Talks, on the trusted side, to one fork-server: sends calls, reads results, starts it anew when it died."""

from __future__ import annotations

import array
import contextlib
import fcntl
import itertools
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graders.sandbox.launch import Started, StartFailed
from graders.sandbox.wire import (
    CALL,
    COMPILE,
    ENDING_SIZE,
    KILL,
    MAX_CODE,
    NOT_STARTED,
    RUN_SCRIPT,
    Call,
    Ending,
    Request,
)
from graders.services import Limits

GRACE_SECONDS = 10.0
"""How long a fork-server may leave a call unfinished beyond its wall time before it is taken to hang."""
BREATH_SECONDS = 1.0
"""How long a call waits for others to end where the machine had no process for it."""
FLOOD = 64
"""A script that prints this many times more than is kept is ended."""

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class ForkServerLost(Exception):
    """Says that the fork-server ended or hung before the call did.

    It is nobody's fault but ours; the call can be repeated.
    """


class NotStarted(ForkServerLost):
    """Says that the fork-server is well, and could make no process for the call just now."""


@dataclass(frozen=True)
class RawOutcome:
    """Holds what came back, unread: bytes that untrusted code wrote.

    Attributes:
        result: what the process wrote into the pipe.
        printed: what a script printed, cut.
        ending: how the process ended.
        overflowed: whether it wrote more than it may, and was ended for it.
    """

    result: bytes
    printed: bytes
    ending: Ending
    overflowed: bool


class Pool:
    """Makes calls on one kind of fork-server, which the first call starts.

    It is safe to use from many threads.

    `start` must start the fork-server from a thread that lives as long as this.
    """

    def __init__(self, start: Callable[[], Started]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._started: Started | None = None
        self._is_closed = False
        self._numbers = itertools.count(1)

    def call(self, kind: int, request: Request, limits: Limits, stdin: str = "") -> RawOutcome:
        """Runs one call to its end, twice if the fork-server is lost.

        Raises `ForkServerLost`, or `StartFailed`.
        """
        try:
            return self._call(kind, request, limits, stdin)
        except NotStarted:
            time.sleep(BREATH_SECONDS)
        except ForkServerLost:
            pass
        return self._call(kind, request, limits, stdin)

    def _call(self, kind: int, request: Request, limits: Limits, stdin: str) -> RawOutcome:
        server = self._server()
        exchange = _Exchange(server, next(self._numbers), kind, limits, request)
        try:
            return exchange.run(stdin)
        except NotStarted:
            raise
        except ForkServerLost:
            self._discard(server)
            raise

    def _discard(self, server: Started) -> None:
        with self._lock:
            if self._started is server:
                self._drop()

    def _server(self) -> Started:
        with self._lock:
            if self._is_closed:
                raise StartFailed("the sandbox was closed")
            if self._started is not None and self._started.process.poll() is not None:
                self._drop()
            if self._started is None:
                self._started = self._start()
            return self._started

    @property
    def process_id(self) -> int | None:
        """Returns the id of the fork-server, or of the bubblewrap around it; None while none runs."""
        return None if self._started is None else self._started.process.pid

    @property
    def landlock(self) -> int:
        """Returns the version of Landlock that holds the fork-server; 0 for none. It starts it if need be."""
        return int(self._server().facts["landlock"])

    def close(self) -> None:
        """Ends the fork-server with all its calls; further ones fail."""
        with self._lock:
            self._is_closed = True
            self._drop()

    def _drop(self) -> None:
        if self._started is None:
            return
        with contextlib.suppress(OSError):
            self._started.link.shutdown(socket.SHUT_RDWR)
        self._started.link.close()
        self._started.process.kill()
        self._started.process.wait()
        self._started = None


class _Exchange:
    """Carries one call: descriptors out, bytes in."""

    def __init__(self, server: Started, number: int, kind: int, limits: Limits, request: Request) -> None:
        self._link = server.link
        self._number = number
        self._kind = kind
        self._limits = limits
        self._request = request
        self._output_bytes = request.output_bytes
        self._most = request.result_bytes + 1 + (MAX_CODE if kind == COMPILE else request.output_bytes)
        self._result = bytearray()
        self._ending = b""
        self._printed = bytearray()
        self._printed_size = 0
        self._overflowed = False

    def run(self, stdin: str) -> RawOutcome:
        """Sends the request and returns what came back. Raises `ForkServerLost`."""
        packed = self._request.pack()
        mine, theirs = self._descriptors(packed, stdin)
        try:
            try:
                self._send(CALL, theirs, len(packed))
            finally:
                for descriptor in theirs:
                    os.close(descriptor)
            self._listen(mine)
        finally:
            for descriptor in mine:
                os.close(descriptor)
        return self._outcome()

    def _descriptors(self, packed: bytes, stdin: str) -> tuple[list[int], list[int]]:
        """Returns ours to read from (ending, result, output).

        With them come those to send (ending, request, result, input, output).
        """
        ending, ending_end = os.pipe2(os.O_CLOEXEC)
        result, result_end = os.pipe2(os.O_CLOEXEC)
        mine, theirs = [ending, result], [ending_end, _sealed(packed), result_end]
        if self._kind == RUN_SCRIPT:
            output, output_end = os.pipe2(os.O_CLOEXEC)
            mine.append(output)
            theirs += [_sealed(stdin.encode("utf-8", "replace")), output_end]
        return mine, theirs

    def _send(self, operation: int, descriptors: Sequence[int] = (), request_bytes: int = 0) -> None:
        limits = self._limits
        call = Call(
            operation,
            max(1, -int(-limits.cpu_seconds // 1)),
            self._number,
            max(1, round(limits.wall_seconds * 1000)),
            limits.memory_bytes,
            self._kind,
            request_bytes,
        )
        rights = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        try:
            self._link.sendmsg([call.pack()], rights)
        except OSError as error:
            raise ForkServerLost(f"the fork-server does not take calls: {error}") from None

    def _listen(self, descriptors: list[int]) -> None:
        """Reads until every pipe is closed, which is so once the process is gone, or the fork-server is."""
        deadline = time.monotonic() + self._limits.wall_seconds + GRACE_SECONDS
        ending, result = descriptors[:2]
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        open_ends = set(descriptors)
        while open_ends:
            ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                raise ForkServerLost("the fork-server did not end a call in time")
            for descriptor, _ in ready:
                data = os.read(descriptor, 65536)
                if not data:
                    poll.unregister(descriptor)
                    open_ends.discard(descriptor)
                elif descriptor == ending:
                    self._ending += data
                elif descriptor == result:
                    self._take_result(data)
                else:
                    self._take_printed(data)

    def _take_result(self, data: bytes) -> None:
        self._result += data
        if len(self._result) > self._most:
            self._stop()
            del self._result[self._most :]

    def _take_printed(self, data: bytes) -> None:
        self._printed_size += len(data)
        self._printed += data[: max(0, self._output_bytes - len(self._printed))]
        if self._printed_size > FLOOD * self._output_bytes:
            self._stop()

    def _stop(self) -> None:
        if not self._overflowed:
            self._overflowed = True
            self._send(KILL)

    def _outcome(self) -> RawOutcome:
        """Puts together what came back: the ending is the fork-server's word, all the rest the program's."""
        if len(self._ending) != ENDING_SIZE:
            raise ForkServerLost("the fork-server ended during a call")
        ending = Ending.unpack(self._ending)
        if ending.status == NOT_STARTED:
            raise NotStarted("no process could be made for the call: the machine has no more")
        return RawOutcome(bytes(self._result), bytes(self._printed), ending, self._overflowed)


def _sealed(data: bytes) -> int:
    """Returns a memory file that nobody can change any more."""
    descriptor = os.memfd_create("call", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
