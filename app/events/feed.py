"""Follows jobs live, with one poller for all who follow in this process.

A follower holds no thread and no database connection: it has its place in a job's log and waits. The poller
asks for all followed jobs at once what is new, reads it once, and wakes those who wait. Nothing queues up for
a follower who reads slowly: each is given what comes behind its own place, out of the few events that are
held, or else page by page.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from app.db import unit_of_work
from app.events.models import JobEvent
from app.events.schemas import EventOut
from app.jobs.models import TERMINAL, Job

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 15.0
HELD = 200
"""So many of the newest events of a followed job are held, for all its followers."""
PAGE = 100
DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
GOES_AWAY = "The server stops. Ask again with this number as Last-Event-ID to go on."


class Frame(NamedTuple):
    """One event as it is sent."""

    seq: int
    data: bytes


class News(NamedTuple):
    """What there is of a job behind some place."""

    frames: list[Frame]
    last_seq: int
    is_over: bool


class JobLog:
    """Reads what followed jobs have to tell out of the database. A feed calls it on threads."""

    def __init__(self, held: int = HELD) -> None:
        self.held = held

    def news(self, seen: Mapping[str, int]) -> dict[str, News]:
        """Returns what is new of each job behind the number last seen (-1: never looked).

        Of many new events it reads the newest `held`.
        """
        news: dict[str, News] = {}
        with unit_of_work() as db:
            query = select(Job.id, Job.last_seq, Job.status).where(Job.id.in_(seen))
            for job_id, last_seq, status in db.execute(query).all():
                frames: list[Frame] = []
                if last_seq > seen[job_id]:
                    behind = max(seen[job_id], last_seq - self.held)
                    span = (JobEvent.job_id == job_id, JobEvent.seq > behind, JobEvent.seq <= last_seq)
                    frames = _frames(db.scalars(select(JobEvent).where(*span).order_by(JobEvent.seq)).all())
                news[job_id] = News(frames, last_seq, status in TERMINAL)
        return news

    def page(self, job_id: str, place: int) -> list[Frame]:
        """Returns the next events behind a place, for a follower who is far behind."""
        with unit_of_work() as db:
            span = (JobEvent.job_id == job_id, JobEvent.seq > place)
            rows = db.scalars(select(JobEvent).where(*span).order_by(JobEvent.seq).limit(PAGE)).all()
            return _frames(rows)


class Tail:
    """The end of one followed job's log."""

    def __init__(self, held: int) -> None:
        self.frames: deque[Frame] = deque(maxlen=held)
        self.last_seq = -1
        self.is_over = False
        self.followers = 0
        self.changed = asyncio.Event()

    def take(self, news: News) -> None:
        """Holds what is new and wakes who waits."""
        if (news.last_seq, news.is_over) == (self.last_seq, self.is_over):
            return
        self.frames.extend(news.frames)
        self.last_seq, self.is_over = news.last_seq, news.is_over
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def behind(self, place: int) -> list[Frame] | None:
        """Returns the held frames behind a place, or None if the first of them are not held any more."""
        if place >= self.last_seq:
            return []
        if not self.frames or self.frames[0].seq > place + 1:
            return None
        return [frame for frame in self.frames if frame.seq > place]


class Feed:
    """Serves all followers of one process, from one event loop."""

    def __init__(
        self,
        log: JobLog | None = None,
        *,
        poll_seconds: float = POLL_SECONDS,
        keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    ) -> None:
        self._log = log or JobLog()
        self._poll_seconds = poll_seconds
        self._keep_alive_seconds = keep_alive_seconds
        self._tails: dict[str, Tail] = {}
        self._new_job = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None
        self._is_closing = False

    @property
    def followers(self) -> int:
        return sum(tail.followers for tail in self._tails.values())

    async def follow(self, job_id: str, place: int) -> AsyncIterator[bytes]:
        """Yields a job's events behind a number as server-sent events, until the job or the server ends."""
        tail = self._join(job_id)
        try:
            while True:
                changed = tail.changed
                frames = tail.behind(place)
                if frames is None:
                    frames = await run_in_threadpool(self._log.page, job_id, place)
                for frame in frames:
                    yield frame.data
                    place = frame.seq
                if tail.is_over and place >= tail.last_seq:
                    yield DONE
                    return
                if self._is_closing:
                    yield _farewell(place)
                    return
                if not frames and not await _comes(changed, self._keep_alive_seconds):
                    yield KEEP_ALIVE
        finally:
            self._leave(job_id, tail)

    def close(self) -> None:
        """Ends every stream, now and from now on: the server stops."""
        self._is_closing = True
        for tail in self._tails.values():
            tail.wake()

    async def wait_closed(self) -> None:
        """Waits until nothing of a closed feed runs any more."""
        if self._poller is not None:
            await self._poller

    def _join(self, job_id: str) -> Tail:
        tail = self._tails.get(job_id)
        if tail is None:
            tail = self._tails[job_id] = Tail(self._log.held)
            self._new_job.set()
        tail.followers += 1
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name="event-feed")
        return tail

    def _leave(self, job_id: str, tail: Tail) -> None:
        tail.followers -= 1
        if not tail.followers and self._tails.get(job_id) is tail:
            del self._tails[job_id]

    async def _poll(self) -> None:
        """Looks for news until nobody follows."""
        while self._tails and not self._is_closing:
            self._new_job.clear()
            seen = {job_id: tail.last_seq for job_id, tail in self._tails.items()}
            try:
                for job_id, news in (await run_in_threadpool(self._log.news, seen)).items():
                    if tail := self._tails.get(job_id):
                        tail.take(news)
            except SQLAlchemyError as problem:
                log.warning("feed_found_no_database", problem=str(problem))
            await _comes(self._new_job, self._poll_seconds)


async def _comes(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def _frames(events: Sequence[JobEvent]) -> list[Frame]:
    return [
        Frame(event.seq, f"id: {event.seq}\ndata: {EventOut.of(event).model_dump_json()}\n\n".encode())
        for event in events
    ]


def _farewell(place: int) -> bytes:
    data = json.dumps({"message": GOES_AWAY, "last_event_id": place})
    return f"retry: 1000\nevent: shutdown\ndata: {data}\n\n".encode()
