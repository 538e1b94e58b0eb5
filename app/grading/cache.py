"""Keeps what was asked before, in memory, bounded, in this process only."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")

ENTRY_BYTES = 256
"""Bytes that an entry takes beside its value, about."""


def key_of(*parts: Any) -> bytes:
    """Returns a digest of JSON values. Put the tenant first: nobody is told what another has asked."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


class ReplyCache(Generic[T]):
    """Keeps replies; the least recently used make room. Safe to use from threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, tuple[T, int]] = OrderedDict()
        self._asked: dict[bytes, Future[T]] = {}
        self._lock = threading.Lock()

    def get_or_ask(self, key: bytes, ask: Callable[[], T], size: Callable[[T], int | None]) -> tuple[T, bool]:
        """Returns the reply, and whether it was known.

        Of several who ask the same at once one does, and the others are given its reply, or its failure. A
        reply whose `size` (bytes) is None is not kept.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0], True
            asked = self._asked.get(key)
            if asked is None:
                mine = self._asked[key] = Future()
        if asked is not None:
            return asked.result(), True
        try:
            reply = ask()
        except BaseException as failed:
            self._settle(key)
            mine.set_exception(failed)
            raise
        self._settle(key, reply, size(reply))
        mine.set_result(reply)
        return reply, False

    def _settle(self, key: bytes, reply: T | None = None, size: int | None = None) -> None:
        with self._lock:
            del self._asked[key]
            if reply is None or size is None:
                return
            size += ENTRY_BYTES
            self._kept[key] = (reply, size)
            self._bytes += size
            while self._bytes > self._max_bytes:
                _, (_, freed) = self._kept.popitem(last=False)
                self._bytes -= freed
