"""Does slow work that a request waits for off the event loop, with a bound for each API key."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from app.errors import TooManyRequests

T = TypeVar("T")


class Turns:
    """Counts what each key has under way.

    Work that outlives its limit is left behind on its thread and goes on counting, so that nobody can pile
    up threads with work that hangs. Threads are daemons: the process does not wait for them when it ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()

    async def run(self, key_id: str, work: Callable[[], T], *, seconds: float, per_key: int) -> T:
        """Does the work on a thread of its own, and returns or raises what it does.

        Raises `TooManyRequests` if the key has `per_key` under way, or `TimeoutError`.
        """
        self._enter(key_id, per_key)
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # a caller who leaves does not cancel it: _do settles it
        threading.Thread(target=self._do, args=(key_id, work, future), name="grader-run", daemon=True).start()
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(future)

    def _enter(self, key_id: str, per_key: int) -> None:
        with self._lock:
            if self._under_way[key_id] >= per_key:
                message = f"This key has {per_key} grader runs under way, and that is the maximum."
                raise TooManyRequests(f"{message} Try again in a moment.")
            self._under_way[key_id] += 1

    def _do(self, key_id: str, work: Callable[[], T], future: Future[T]) -> None:
        try:
            result = work()
        except BaseException as problem:
            self._leave(key_id)
            future.set_exception(problem)
        else:
            self._leave(key_id)
            future.set_result(result)

    def _leave(self, key_id: str) -> None:
        with self._lock:
            self._under_way[key_id] -= 1
            if not self._under_way[key_id]:
                del self._under_way[key_id]
