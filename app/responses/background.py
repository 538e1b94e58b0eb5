"""Responses in the background: the process that took the request works on them until they are over.

The row decides. The process renews its lease while it works, which also tells it of a cancel through another
process; the sweep ends what no process renews any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import structlog
from starlette.concurrency import run_in_threadpool

from app.db import unit_of_work
from app.errors import DATABASE_AWAY, ApiError, ServerError
from app.responses import service as responses
from app.responses.response import failed

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=30)
RENEWAL_SECONDS = 2.0
"""Between two renewals, and so the longest time until a cancel through another process is seen."""
Work = Callable[[], Awaitable[dict[str, Any]]]


class Background:
    """The responses in the background of one process."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, response: dict[str, Any], work: Work) -> None:
        """Begins work on a response that is stored; `work` gives it finished."""
        task = asyncio.create_task(self._carry_out(response, work), name=response["id"])
        self._tasks[response["id"]] = task
        task.add_done_callback(lambda _: self._tasks.pop(response["id"], None))

    def cancel(self, response_id: str) -> None:
        """Stops work of this process; what others do ends with their next renewal."""
        if task := self._tasks.get(response_id):
            task.cancel()

    async def _carry_out(self, response: dict[str, Any], work: Work) -> None:
        working = asyncio.ensure_future(work())
        try:
            while not working.done():
                if not await self._is_wanted(response["id"]):
                    return
                await asyncio.wait({working}, timeout=RENEWAL_SECONDS)
            await run_in_threadpool(_finish, _outcome(response, working))
        finally:
            working.cancel()
            with suppress(BaseException):
                await working

    async def _is_wanted(self, response_id: str) -> bool:
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


def _finish(response: dict[str, Any]) -> None:
    with unit_of_work() as db:
        responses.finish(db, response)
