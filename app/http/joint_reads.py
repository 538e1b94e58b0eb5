"""Carries out together reads for which many clients ask at a time: pollers ask over and over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Generic, TypeVar

from sqlalchemy.orm import Session

from app.db import on_lookup_thread, unit_of_work

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class JointReads(Generic[Key, Value]):
    """Gathers what is asked while a read is under way, for the next one. One of these serves one event loop.

    So a read always begins after it was asked for, and sees what was committed before.
    """

    def __init__(self, read: Callable[[Session, Collection[Key]], Mapping[Key, Value]]) -> None:
        """`read` runs on a thread, in a transaction; what it does not find, it leaves out."""
        self._read = read
        self._asked: dict[Key, asyncio.Future[Value | None]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def get(self, key: Key) -> Value | None:
        """Returns what there is for a key, or None. Raises what `read` raises."""
        waiting = self._asked.get(key)
        if waiting is None:
            waiting = self._asked[key] = asyncio.get_running_loop().create_future()
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read_what_is_asked())
        return await asyncio.shield(waiting)  # others may wait for it when this client has left

    async def _read_what_is_asked(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            try:
                found = await on_lookup_thread(self._in_a_transaction, asked.keys())
            except Exception as problem:
                for waiting in asked.values():
                    waiting.set_exception(problem)
            else:
                for key, waiting in asked.items():
                    waiting.set_result(found.get(key))

    def _in_a_transaction(self, keys: Collection[Key]) -> Mapping[Key, Value]:
        with unit_of_work() as db:
            return self._read(db, keys)
