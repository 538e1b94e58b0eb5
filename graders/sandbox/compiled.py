"""Keeps compiled code of programs that run often, made in processes as locked as those that run it."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from graders.sandbox.pool import Pool
from graders.sandbox.wire import COMPILE, Request
from graders.services import Limits

COMPILED_SOURCES = 256
WORTH_COMPILING = 8000
"""Bytes that calls compile by themselves before a process does it once for all, at the cost of about 8 kB."""
CALL_OF_COMPILE = 1000
"""Bytes that are added to each source: compiling the shortest costs as much as reading them."""
MOST_TOLD = 16 * 2**10
"""Bytes that a compilation may say beside the code: a failure's line is never longer."""


class CompiledSources:
    """Keeps the compiled code of sources seen often, by what they hold; most recently used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, bytes | int] = OrderedDict()
        """The code, or how often the source was seen."""

    def of(self, source: bytes, pool: Pool) -> bytes:
        """Returns marshalled code, for a process as locked as the one that made it; empty the first times."""
        key = hashlib.sha256(source).digest()
        with self._lock:
            known = self._known.pop(key, 0)
            self._known[key] = known if isinstance(known, bytes) else known + 1
            while len(self._known) > COMPILED_SOURCES:
                self._known.popitem(last=False)
        if isinstance(known, bytes):
            return known
        if known * (len(source) + CALL_OF_COMPILE) < WORTH_COMPILING:
            return b""
        code = _compiled(source, pool)
        with self._lock:
            self._known[key] = code
        return code


def _compiled(source: bytes, pool: Pool) -> bytes:
    """Compiles in a locked process that runs none of it; returns nothing where it does not compile."""
    raw = pool.call(
        COMPILE, Request("", (), source, b"", 0, 0, MOST_TOLD), Limits(wall_seconds=60, cpu_seconds=60)
    )
    head, _, code = raw.result.partition(b"\n")
    return code if head == b'{"ok": true, "v": null}' and not raw.overflowed else b""
