"""Requests that wait, sampled together where they can be."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import structlog

from app.errors import ServerError, Unavailable
from workers.serving.chat import Chat, SampledCompletions, SamplingOptions
from workers.serving.library import Library, ModelFiles

if TYPE_CHECKING:
    pass

log = structlog.get_logger(__name__)

MAX_TOGETHER = 64
"""The most completions that are begun together. Chosen, not measured."""
MAX_WAITING = 1024
"""Requests that may wait before others are turned away. Chosen, not measured."""


class Batcher:
    """Samples on one thread; what arrives meanwhile goes together next."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._waiting: deque[Chat] = deque()
        self._changed = threading.Condition()
        self.rounds = 0
        """How often something was sampled."""
        threading.Thread(target=self._work, name="sample", daemon=True).start()

    def submit(
        self, files: ModelFiles, messages: Sequence[Mapping[str, Any]], options: SamplingOptions, seed: int
    ) -> Future[SampledCompletions]:
        """Returns the completions to come; the future raises an `ApiError`.

        Raises `Unavailable` if too many wait.
        """
        chat = Chat(files, messages, options, seed, Future())
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                raise Unavailable(f"{MAX_WAITING} requests wait for the sampler already. Try again later.")
            self._waiting.append(chat)
            self._changed.notify()
        return chat.result

    def _work(self) -> None:
        while True:
            chats = self._next()
            self.rounds += 1
            try:
                self._sample(chats)
            except Exception as problem:  # the thread must go on; whoever waits is told
                _fail(chats, problem)

    def _next(self) -> list[Chat]:
        """Returns the request that waits longest, with others like it.

        Skips what nobody waits for any more.
        """
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            first = self._waiting[0]
            alike = [
                c for c in self._waiting if c.files == first.files and c.options.key() == first.options.key()
            ]
            chosen = alike[: max(1, MAX_TOGETHER // first.options.samples)]
            self._waiting = deque(c for c in self._waiting if c not in chosen)
        return [chat for chat in chosen if chat.result.set_running_or_notify_cancel()]

    def _sample(self, chats: Sequence[Chat]) -> None:
        if not chats:
            return
        from workers.serving.sampling import sample_chats

        sample_chats(self._library.load(chats[0].files), chats)


def _fail(chats: Sequence[Chat], problem: Exception) -> None:
    """Tells whoever was not answered; what nobody foresaw is logged, and told without its text."""
    from app.errors import ApiError

    if not isinstance(problem, ApiError):
        log.exception("sampling_failed")
        problem = ServerError("The sampler failed; its log says why.")
    for chat in chats:
        if not chat.result.done():
            chat.result.set_exception(problem)
