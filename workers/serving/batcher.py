"""Requests that wait, sampled together where they can be."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import structlog

from app.errors import ServerError, Unavailable
from workers.serving.chat import Answered, Chat, Shape
from workers.serving.library import Library, Place

if TYPE_CHECKING:
    pass

log = structlog.get_logger(__name__)

MAX_TOGETHER = 64
"""Most completions that are begun together."""
MAX_WAITING = 1024


class Batcher:
    """One thread that samples; what arrives meanwhile goes together next."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._waiting: deque[Chat] = deque()
        self._changed = threading.Condition()
        self.rounds = 0
        """How often something was sampled."""
        threading.Thread(target=self._work, name="sample", daemon=True).start()

    def submit(
        self, place: Place, messages: Sequence[Mapping[str, Any]], shape: Shape, seed: int
    ) -> Future[Answered]:
        """The answer to come. It raises an `ApiError`. Raises `Unavailable` if too many wait."""
        chat = Chat(place, messages, shape, seed, Future())
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                raise Unavailable(f"{MAX_WAITING} requests wait for the sampler already. Try again later.")
            self._waiting.append(chat)
            self._changed.notify()
        return chat.answer

    def _work(self) -> None:
        while True:
            chats = self._next()
            self.rounds += 1
            try:
                self._sample(chats)
            except Exception as problem:  # the thread must go on; whoever waits is told
                _fail(chats, problem)

    def _next(self) -> list[Chat]:
        """The one that waits longest, with others like it. Skips what nobody waits for any more."""
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            first = self._waiting[0]
            alike = [
                c for c in self._waiting if c.place == first.place and c.shape.key() == first.shape.key()
            ]
            chosen = alike[: max(1, MAX_TOGETHER // first.shape.samples)]
            self._waiting = deque(c for c in self._waiting if c not in chosen)
        return [chat for chat in chosen if chat.answer.set_running_or_notify_cancel()]

    def _sample(self, chats: Sequence[Chat]) -> None:
        if not chats:
            return
        from workers.serving.sampling import answer

        answer(self._library.load(chats[0].place), chats)


def _fail(chats: Sequence[Chat], problem: Exception) -> None:
    """Tell whoever was not answered; what nobody foresaw is logged, and told without its text."""
    from app.errors import ApiError

    if not isinstance(problem, ApiError):
        log.exception("sampling_failed")
        problem = ServerError("The sampler failed; its log says why.")
    for chat in chats:
        if not chat.answer.done():
            chat.answer.set_exception(problem)
