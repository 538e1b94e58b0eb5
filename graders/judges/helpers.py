"""Threads that lend a hand where one grade has several calls to make.

They are kept, because a thread that is made for one call costs a tenth of it. Whoever has work begins with it
at once and takes all that no helper has taken: busy helpers make a grade slower, and never wait for it.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextvars import Context, copy_context
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

MAX_HELPERS = 128
"""Threads of a process. Chosen, not measured: four times what a judge takes at a time unless it says more."""


class Helpers:
    """Runs calls of many callers on a bounded number of threads. Safe to use from threads."""

    def __init__(self, most: int = MAX_HELPERS) -> None:
        self._most = most
        self.forget()

    def forget(self) -> None:
        """Begins anew without threads, as a process must that was forked: its parent's are not in it."""
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[tuple[Context, Callable[[], None]]] = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0

    def map(self, call: Callable[[T], R], given: Sequence[T], together: int) -> list[R]:
        """Returns what the call returns for each that is given, in their order, `together` at a time at most.

        Raises what the first of them raised, once all have ended.
        """
        work = _Work(call, given)
        for _ in range(min(len(given), together) - 1):
            self._offer(work.help)
        work.help()
        return work.outcomes()

    def _offer(self, task: Callable[[], None]) -> None:
        self._tasks.put((copy_context(), task))
        with self._lock:
            if self._idle >= self._tasks.qsize() or self._threads == self._most:
                return
            self._threads += 1
        threading.Thread(target=self._serve, name="judge-helper", daemon=True).start()

    def _serve(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            context, task = self._tasks.get()
            with self._lock:
                self._idle -= 1
            context.run(task)


class _Work(Generic[T, R]):
    """Holds the calls of one caller, each of which is made by whoever takes it first."""

    def __init__(self, call: Callable[[T], R], given: Sequence[T]) -> None:
        self._call = call
        self._futures: list[Future[R]] = [Future() for _ in given]
        self._left = deque(zip(given, self._futures, strict=True))

    def help(self) -> None:
        """Makes calls until none is left to take."""
        while True:
            try:
                one, future = self._left.popleft()
            except IndexError:
                return
            try:
                future.set_result(self._call(one))
            except BaseException as problem:
                future.set_exception(problem)

    def outcomes(self) -> list[R]:
        """Returns what became of all calls, once they have ended. Raises what the first of them raised."""
        wait(self._futures)
        return [future.result() for future in self._futures]


HELPERS = Helpers()
"""The helpers of this process; one that is forked begins with none."""
os.register_at_fork(after_in_child=HELPERS.forget)
