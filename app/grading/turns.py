"""Does slow work that a request waits for off the event loop, within a bound for each key and one for all."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from app.errors import TooManyRequests

T = TypeVar("T")

WAIT_SECONDS = 10.0
"""How long a call waits for its turn before it is sent away."""
RETRY_AFTER_SECONDS = 2
"""When a call that was sent away should come again."""
MAX_TOGETHER = 64
"""Most works of one process that are under way at a time, whosever they are."""


class _Call:
    """A call that waits for its turn."""

    def __init__(self, per_key: int) -> None:
        self.per_key = per_key
        self.has_turn = False
        self._loop = asyncio.get_running_loop()
        self._turn: asyncio.Future[None] = self._loop.create_future()

    def give_turn(self) -> None:
        """Wakes the caller; from any thread."""
        self.has_turn = True
        self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if not self._turn.done():
            self._turn.set_result(None)

    async def turn(self) -> None:
        await self._turn


class Turns:
    """Counts what each key has under way, and lets calls beyond that wait for a place.

    Places go round over the keys that wait, and inside a key to the call that has waited longest, so that
    nobody's crowd holds up another key. Work that outlives its limit is left behind on its thread and goes on
    counting, so that nobody can pile up threads with work that hangs. Threads are daemons: the process does
    not wait for them when it ends.
    """

    def __init__(self, *, wait_seconds: float = WAIT_SECONDS, together: int = MAX_TOGETHER) -> None:
        self._wait_seconds = wait_seconds
        self._together = together
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[_Call]] = OrderedDict()

    async def run(self, key_id: str, work: Callable[[], T], *, seconds: float, per_key: int) -> T:
        """Does the work on a thread of its own, and returns or raises what it does.

        Raises `TooManyRequests` if the call has waited in vain, or `TimeoutError`. `seconds` count from the
        beginning of the work.
        """
        await self._enter(key_id, per_key)
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # a caller who leaves does not cancel it: _do settles it
        threading.Thread(target=self._do, args=(key_id, work, future), name="grader-run", daemon=True).start()
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(future)

    async def _enter(self, key_id: str, per_key: int) -> None:
        call = _Call(per_key)
        with self._lock:
            self._waiting.setdefault(key_id, deque()).append(call)
            self._give_places()
        try:
            async with asyncio.timeout(self._wait_seconds):
                await call.turn()
        except TimeoutError:
            if self._withdraw(key_id, call):
                raise _too_many(per_key, self._wait_seconds) from None
        except BaseException:  # the caller has left
            if not self._withdraw(key_id, call):
                self._leave(key_id)
            raise

    def _withdraw(self, key_id: str, call: _Call) -> bool:
        """Takes a call out of the queue; False if it has got its place by now."""
        with self._lock:
            if call.has_turn:
                return False
            calls = self._waiting[key_id]
            calls.remove(call)
            if not calls:
                del self._waiting[key_id]
            return True

    def _give_places(self) -> None:
        """Gives free places to those who wait; the caller holds the lock."""
        while chosen := next(
            (key for key, calls in self._waiting.items() if self._has_place(key, calls)), None
        ):
            calls = self._waiting[chosen]
            self._under_way[chosen] += 1
            calls.popleft().give_turn()
            self._waiting.move_to_end(chosen)
            if not calls:
                del self._waiting[chosen]

    def _has_place(self, key_id: str, calls: deque[_Call]) -> bool:
        return self._under_way[key_id] < calls[0].per_key and self._under_way.total() < self._together

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
            self._give_places()


def _too_many(per_key: int, waited: float) -> TooManyRequests:
    message = (
        f"This key has {per_key} grader runs under way, and that is the maximum."
        f" This one waited {waited:.0f} s for its turn. Try again in a moment."
    )
    return TooManyRequests(message, headers={"retry-after": str(RETRY_AFTER_SECONDS)})
