"""Packs what passes between the trusted side and the fork-server.

Loaded on both sides: standard library only.

A call is one packet, `Call`, with three descriptors (five for a script): a pipe for the ending, a sealed
memory file that holds the request, and a pipe for the result; then standard input and output. Neither request
nor result passes through the fork-server, which forks every tenant's calls: memory it has never held cannot
be inherited. When the process has ended, the fork-server writes an `Ending` into the pipe for it, which no
program ever holds: nothing that a program wrote into its own is taken for the fork-server's word.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

CALL, KILL = 1, 2
_CALL = struct.Struct("<IIQQQII")
_ENDING = struct.Struct("<iIQ")

NOT_STARTED = -1
"""Stands for the wait status of a call for which no process could be made; no real one is negative."""

_PLAIN = 2
"""The last format of `marshal` without references: a list that is in two places arrives as two."""

ENDING_SIZE = _ENDING.size
MAX_CODE = 8 * 2**20
"""Most bytes of compiled code."""

RUN_FUNCTION, RUN_SCRIPT, COMPILE = 0, 1, 2


class Call(NamedTuple):
    """Says what to start (CALL) or to kill (KILL), its limits, and the size of its request: the packet."""

    operation: int
    cpu_seconds: int
    number: int
    wall_milliseconds: int
    memory_bytes: int
    kind: int = RUN_FUNCTION
    request_bytes: int = 0

    def pack(self) -> bytes:
        """Returns the call as the bytes of a packet."""
        return _CALL.pack(*self)

    @classmethod
    def unpack(cls, packet: bytes) -> Call:
        """Reads a call out of a packet. Raises `struct.error`."""
        return cls(*_CALL.unpack(packet))


class Ending(NamedTuple):
    """Says how a process ended, as the fork-server saw it: its wait status, and the CPU time it took."""

    status: int
    was_late: int
    cpu_microseconds: int

    def pack(self) -> bytes:
        """Returns the ending as `ENDING_SIZE` bytes."""
        return _ENDING.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> Ending:
        """Reads an ending out of the `ENDING_SIZE` bytes of its pipe."""
        return cls(*_ENDING.unpack(data))


class Request(NamedTuple):
    """Says what a call is to do; it is read only behind the locks.

    Attributes:
        function: name of the function to call; empty for none.
        arguments: JSON values.
        source: the text, for compiling and for tracebacks.
        code: the compiled source, marshalled by a call of kind COMPILE; empty to compile now.
        output_bytes: most that is kept of what is printed.
        result_bytes: most bytes of a result, before what was printed.
        harness: which functions of the sandbox's own are called; empty for one of the source's.
    """

    function: str
    arguments: Sequence[Any]
    source: bytes
    code: bytes
    seed: int
    output_bytes: int
    result_bytes: int
    harness: str = ""

    def pack(self) -> bytes:
        """Returns the request as bytes of `marshal`."""
        return marshal.dumps(list(self._replace(arguments=list(self.arguments))), _PLAIN)

    @classmethod
    def unpack(cls, data: bytes) -> Request:
        """Reads a request that the trusted side packed."""
        return cls(*marshal.loads(data))  # noqa: S302 - comes from the trusted side, and is read behind the locks
