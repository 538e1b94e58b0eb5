"""Responses in the background: the process that took the request works on them until they are over.

The row decides. The process renews its lease while it works, which also tells it of a cancel through another
process; the sweep ends what no process renews any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import structlog
from starlette.concurrency import run_in_threadpool

from app.db import unit_of_work
from app.errors import DATABASE_AWAY, ApiError, ServerError
from app.inference.reply import Piece
from app.responses import service as responses
from app.responses.output import Output
from app.responses.response import Events, failed

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=30)
RENEWAL_SECONDS = 2.0
"""Between two renewals, and so the longest time until a cancel through another process is seen."""


class Progress:
    """The events of a response so far, for whoever follows it in this process."""

    def __init__(self, response: Mapping[str, Any]) -> None:
        self._events = Events(response)
        self._told = list(self._events.opening())
        self._is_over = False
        self._changed = asyncio.Event()

    @property
    def output(self) -> Output:
        """Returns what the model has written so far."""
        return self._events.output

    def add(self, pieces: Sequence[Piece]) -> None:
        """Tells of the next pieces."""
        self._told += self._events.growth(pieces)
        self._wake()

    def end_reply(self) -> None:
        """Tells of the end of the model's reply."""
        self._told += self._events.end()

    def end(self, response: Mapping[str, Any] | None) -> None:
        """Tells of the response once it is over; of None nothing more is told, as it was cancelled."""
        if response is not None:
            self._told += self._events.closing(response)
        self._is_over = True
        self._wake()

    async def follow(self, behind: int = -1) -> AsyncGenerator[bytes]:
        """Yields the events behind that number until the response is over."""
        place = behind + 1
        while True:
            changed = self._changed
            if told := self._told[place:]:
                place = len(self._told)
                yield b"".join(told)
            elif self._is_over:
                return
            else:
                await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


Work = Callable[[Progress], Awaitable[dict[str, Any]]]


class Background:
    """The responses in the background of one process."""

    def __init__(self) -> None:
        self._under_way: dict[str, tuple[Progress, asyncio.Task[None]]] = {}

    def start(self, response: dict[str, Any], work: Work) -> Progress:
        """Begins work on a response that is stored; `work` gives it finished."""
        response_id, progress = response["id"], Progress(response)
        task = asyncio.create_task(self._carry_out(response, progress, work), name=response_id)
        self._under_way[response_id] = progress, task
        task.add_done_callback(lambda _: self._under_way.pop(response_id, None))
        return progress

    def progress(self, response_id: str) -> Progress | None:
        """Returns the progress of a response that this process works on."""
        progress, _ = self._under_way.get(response_id, (None, None))
        return progress

    def cancel(self, response_id: str) -> None:
        """Stops work of this process; what others do ends with their next renewal."""
        if under_way := self._under_way.get(response_id):
            under_way[1].cancel()

    async def close(self) -> None:
        """Ends all work, because the process does. The sweep tells their owners, once the leases are over."""
        tasks = [task for _, task in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry_out(self, response: dict[str, Any], progress: Progress, work: Work) -> None:
        working = asyncio.ensure_future(work(progress))
        outcome = None
        try:
            while not working.done():
                if not await _is_wanted(response["id"]):
                    return
                await asyncio.wait({working}, timeout=RENEWAL_SECONDS)
            finished = _outcome(response, working)
            if await run_in_threadpool(_finish, finished):
                outcome = finished
        finally:
            progress.end(outcome)
            working.cancel()
            with suppress(BaseException):
                await working


async def _is_wanted(response_id: str) -> bool:
    def renew() -> bool:
        with unit_of_work() as db:
            return responses.renew(db, response_id, LEASE)

    try:
        return await run_in_threadpool(renew)
    except DATABASE_AWAY:
        return True  # if it stays away, the lease runs out


def _outcome(response: dict[str, Any], working: asyncio.Future[dict[str, Any]]) -> dict[str, Any]:
    problem = working.exception()
    if problem is None:
        return working.result()
    if isinstance(problem, ApiError):
        return failed(response, problem)
    log.error("response_failed", response_id=response["id"], exc_info=problem)
    return failed(response, ServerError("The server had an error while it worked on this response."))


def _finish(response: dict[str, Any]) -> bool:
    with unit_of_work() as db:
        return responses.finish(db, response)
