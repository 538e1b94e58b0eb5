"""Answers as they grow: what the engine tells, taken to the event loop, and written to clients."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from app.errors import ApiError
from workers.serving.chunks import DONE, Choice, Echo, Usage, Wire
from workers.serving.requests import Event, Failed, Started

LONGEST_PAUSE = 0.03
"""The most seconds between two chunks of a stream that has more to tell. Chosen: nobody reads as fast."""
PAUSE_PER_STREAM = 0.0005
"""Seconds between two chunks, for each stream that is open: at most 2,000 chunks a second are written, some
hundred microseconds each. Chosen, not measured.
"""
FEW_STREAMS = 2
"""So many streams are told each token at once. Chosen, not measured."""


class Cancellable(Protocol):
    """Is a request that the engine has taken."""

    def cancel(self) -> None:
        """Ends it, wherever it stands."""


class Hop:
    """Carries events from the engine's thread to the event loop, all that have come by then at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: deque[tuple[Part, Event]] = deque()
        self._is_called = False

    def teller(self, part: Part) -> Callable[[Event], None]:
        """Returns what the engine tells of a prompt; it may be called on any thread."""

        def tell(event: Event) -> None:
            self._events.append((part, event))
            if not self._is_called:
                self._is_called = True
                if not self._loop.is_closed():
                    self._loop.call_soon_threadsafe(self._deliver)

        return tell

    def _deliver(self) -> None:
        self._is_called = False
        touched: dict[Answer, None] = {}
        while self._events:
            part, event = self._events.popleft()
            part.take(event)
            touched[part.answer] = None
        for answer in touched:
            answer.changed.set()


class Part:
    """Is one prompt of a request, with its completions."""

    def __init__(
        self,
        answer: Answer,
        choices: Sequence[Choice],
        echo: Callable[[Started], Echo] | None,
        *,
        is_read: bool,
    ) -> None:
        """`is_read` says that the prompt is only read: its completions have no tokens."""
        self.answer = answer
        self.choices = choices
        self.ticket: Cancellable | None = None
        self._echo = echo
        self._is_read = is_read
        self._running = len(choices)

    def take(self, event: Event) -> None:
        """Takes what the engine tells."""
        if self.answer.is_closed:
            return
        if isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Failed):
            self.answer.error = self.answer.error or event.error
        else:
            for token in event:
                choice = self.choices[token.sample]
                if choice.text.finish is None:
                    self.answer.news[choice] = None
                    if choice.text.push(token):
                        self._end()

    def _start(self, started: Started) -> None:
        self.answer.start(started)
        for choice in self.choices:
            choice.echo = self._echo(started) if self._echo else None
            self.answer.news[choice] = None
            if self._is_read:
                choice.text.finish = "length"
                self._end()

    def cancel(self) -> None:
        """Lets the engine end what it still samples."""
        if self.ticket:
            self.ticket.cancel()

    def _end(self) -> None:
        self._running -= 1
        self.answer.running -= 1
        if not self._running:
            self.cancel()  # a text may end before the engine sees it


class Answer:
    """Is what one HTTP request is told, whether it is streamed or comes whole."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.parts: list[Part] = []
        self.running = 0
        """Choices that have not ended."""
        self.news: dict[Choice, None] = {}
        """Choices with something to tell."""
        self.error: ApiError | None = None
        self.is_closed = False
        self.changed = asyncio.Event()
        self._opened: set[Choice] = set()
        self._prompt_tokens = self._cached_tokens = 0
        self._is_started = False

    def add(
        self, choices: Sequence[Choice], echo: Callable[[Started], Echo] | None, *, is_read: bool
    ) -> Part:
        """Adds a prompt with its completions."""
        part = Part(self, choices, echo, is_read=is_read)
        self.parts.append(part)
        self.running += len(choices)
        return part

    def start(self, started: Started) -> None:
        """Takes note that a prompt was read."""
        self._is_started = True
        self._prompt_tokens += started.prompt_tokens
        self._cached_tokens += started.cached_tokens

    def close(self) -> None:
        """Ends the request: what is still sampled for it is not wanted any more."""
        self.is_closed = True
        for part in self.parts:
            part.cancel()
        self.changed.set()

    async def begun(self) -> None:
        """Waits until there is something to tell. Raises the `ApiError` if the request has failed first."""
        while not self._is_started and not self.is_closed:
            await self._change()
            self._raise_error()

    async def whole(self) -> dict[str, object]:
        """Returns the answer when it is complete. Raises the `ApiError` if the request has failed."""
        while self.running and not self.is_closed:
            await self._change()
            self._raise_error()
        return self.wire.whole([choice for part in self.parts for choice in part.choices], self._usage())

    async def stream(self, pause: Callable[[], float]) -> AsyncIterator[str]:
        """Yields the chunks of a stream, several at a time. `pause()` says how long to gather text."""
        while not self.is_closed:
            if told := self._told():
                yield told
            if self.error is not None or not self.running:
                return
            if seconds := pause():
                await asyncio.sleep(seconds)
            await self._change()

    def _told(self) -> str:
        news, self.news = self.news, {}
        told = "".join([self._told_of(choice) for choice in news])
        if self.error is not None:
            return told + error_event(self.error)
        return told if self.running else told + self.wire.usage(self._usage()) + DONE

    def _told_of(self, choice: Choice) -> str:
        told = ""
        if choice not in self._opened:
            self._opened.add(choice)
            told = self.wire.opening(choice)
        told += self.wire.piece(choice, choice.text.take())
        return told + self.wire.last(choice) if choice.text.finish else told

    async def _change(self) -> None:
        await self.changed.wait()
        self.changed.clear()

    def _raise_error(self) -> None:
        if self.error is not None:
            raise self.error

    def _usage(self) -> Usage:
        texts = [choice.text for part in self.parts for choice in part.choices]
        written = sum(text.tokens for text in texts)
        thought = sum(text.thought_tokens for text in texts)
        return Usage(self._prompt_tokens, written, self._cached_tokens, thought)


class Pace:
    """Says how long streams gather text before they write: the more there are, the longer."""

    def __init__(self) -> None:
        self.streams = 0

    def __call__(self) -> float:
        """Returns the seconds."""
        return 0.0 if self.streams <= FEW_STREAMS else min(LONGEST_PAUSE, self.streams * PAUSE_PER_STREAM)


def error_event(error: ApiError) -> str:
    """Returns what ends a stream that has failed."""
    return f"data: {json.dumps(error.body())}\n\n"
