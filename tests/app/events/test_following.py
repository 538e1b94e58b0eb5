"""Following a job live: over HTTP, and many followers of one feed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.events import service as events
from app.events.feed import DONE, Feed, Frame, JobLog, News
from app.jobs.models import Job
from app.settings import get_settings
from tests.app.events.growing_logs import end, tell
from tests.e2e.service import wait_for
from tests.factories import Tenant, make_job, make_tenant


@pytest.fixture
def job(db: Session, tenant: Tenant) -> Job:
    """A job that waits, with three events."""
    made = make_job(db, tenant.project_id)
    for number in (1, 2, 3):
        events.append(db, made.id, f"e{number}", f"event {number}")
    db.commit()
    return made


def path(job: Job, query: str = "") -> str:
    return f"/v1/fine_tuning/jobs/{job.id}/events?stream=true{query}"


def told(lines: Iterator[str]) -> Iterator[tuple[int, str]]:
    """Number and message of each event, until the stream ends."""
    seq = 0
    for line in lines:
        if line.startswith("id: "):
            seq = int(line[4:])
        elif line.startswith("data: ") and line != "data: [DONE]":
            yield seq, json.loads(line[6:])["message"]


def test_a_follower_is_told_what_was_and_what_comes_until_the_job_is_over(
    http: httpx.Client, job: Job
) -> None:
    with http.stream("GET", path(job)) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        seen = told(lines)
        assert [next(seen) for _ in range(3)] == [(n, f"event {n}") for n in (1, 2, 3)]
        tell(job.id, 4, 5)
        assert [next(seen) for _ in range(2)] == [(4, "event 4"), (5, "event 5")]
        end(job.id)
        rest = list(lines)
    assert rest[-2:] == ["data: [DONE]", ""]
    assert "The job was cancelled" in "".join(rest)


def test_the_frames_are_the_events_of_the_list(http: httpx.Client, job: Job) -> None:
    end(job.id)
    listed = http.get(f"/v1/fine_tuning/jobs/{job.id}/events").json()["data"]
    frames = http.get(path(job)).text.split("\n\n")
    assert [json.loads(frame.partition("data: ")[2]) for frame in frames[:-2]] == listed[::-1]
    assert frames[-2:] == ["data: [DONE]", ""]


@pytest.mark.parametrize(
    ("query", "headers", "first"),
    [
        pytest.param("&after=2", {}, 3, id="a number"),
        pytest.param("&after=EVENT2", {}, 3, id="an event"),
        pytest.param("&after=1", {"last-event-id": "2"}, 3, id="what the browser says wins"),
        pytest.param("&after=nothing", {}, 1, id="unknown"),
        pytest.param("", {"last-event-id": "no number"}, 1, id="no number"),
        pytest.param("&after=99999999999999999999", {}, 1, id="no number that could be"),
    ],
)
def test_a_follower_goes_on_behind_the_event_it_names(
    http: httpx.Client, db: Session, job: Job, query: str, headers: dict[str, str], first: int
) -> None:
    end(job.id)
    second = events.list_events(db, job.id, after=None, limit=10).rows[-2]
    answer = http.get(path(job, query.replace("EVENT2", second.id)), headers=headers)
    assert [seq for seq, _ in told(iter(answer.text.splitlines()))] == list(range(first, 5))


def test_a_browser_that_has_seen_the_end_is_told_not_to_come_again(http: httpx.Client, job: Job) -> None:
    end(job.id)
    answer = http.get(path(job), headers={"last-event-id": "4"})
    assert (answer.status_code, answer.content) == (204, b"")


def test_anothers_job_cannot_be_followed(http: httpx.Client, db: Session) -> None:
    other = make_job(db, make_tenant(db, "other").project_id)
    db.commit()
    assert http.get(path(other)).status_code == 404


def test_followers_beyond_the_limit_are_sent_away(
    http: httpx.Client, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHERRY_MAX_FOLLOWERS", "1")
    get_settings.cache_clear()
    with http.stream("GET", path(job)) as first:
        lines = first.iter_lines()
        next(told(lines))
        refused = http.get(path(job))
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "30"
        end(job.id)
        list(lines)


def test_a_server_that_stops_tells_its_followers_how_to_go_on(
    settings: object, db: Session, tenant: Tenant, job: Job
) -> None:
    command = [sys.executable, "-m", "app.cli.main", "api", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ) as server:
        try:
            url = _listening_at(server)
            headers = {"authorization": f"Bearer {tenant.key}"}
            with httpx.stream("GET", f"{url}{path(job)}", headers=headers, timeout=60) as answer:
                lines = answer.iter_lines()
                seen = told(lines)
                assert [next(seen)[0] for _ in range(3)] == [1, 2, 3]
                server.send_signal(signal.SIGTERM)
                rest = list(lines)
            assert "event: shutdown" in rest
            assert json.loads(rest[-2].removeprefix("data: "))["last_event_id"] == 3
            assert server.wait(30) in (0, -signal.SIGTERM)
        finally:
            server.kill()


def _listening_at(server: subprocess.Popen[bytes]) -> str:
    import psutil

    def port() -> int | None:
        found = psutil.Process(server.pid).net_connections(kind="tcp4")
        return next((c.laddr.port for c in found if c.status == psutil.CONN_LISTEN), None)

    return f"http://127.0.0.1:{wait_for(port, what='the port')}"


# Many followers of one feed, without HTTP.


async def read(stream: AsyncIterator[bytes], pause: Callable[[], Any] | None = None) -> list[int]:
    """Numbers of all events until the end."""
    seen = []
    async for frame in stream:
        if frame == DONE:
            return seen
        if frame.startswith(b"id: "):
            seen.append(int(frame[4 : frame.index(b"\n")]))
        if pause is not None:
            await pause()
    raise AssertionError("the stream ended without [DONE]")


async def stop(feed: Feed) -> None:
    feed.close()
    await feed.wait_closed()


def run_beside(job_id: str, first: int, last: int) -> threading.Thread:
    """Tell events from a thread, then end the job."""

    def act() -> None:
        tell(job_id, first, last)
        end(job_id)

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_hundreds_of_followers_each_see_every_event_once_by_a_few_looks_at_the_database(
    job: Job,
) -> None:
    looks: list[int] = []

    class Counted(JobLog):
        def news(self, seen: Mapping[str, int]) -> dict[str, News]:
            looks.append(len(seen))
            return super().news(seen)

        def page(self, job_id: str, place: int) -> list[Frame]:
            raise AssertionError("nobody is ever so far behind")

    async def follow() -> list[list[int]]:
        feed = Feed(Counted(), poll_seconds=0.05)
        streams = [read(feed.follow(job.id, place % 4)) for place in range(400)]
        writer = run_beside(job.id, 4, 60)
        found = await asyncio.gather(*streams)
        writer.join()
        assert feed.followers == 0
        await stop(feed)
        return found

    found = asyncio.run(follow())
    assert [seen == list(range(place % 4 + 1, 62)) for place, seen in enumerate(found)] == [True] * 400
    assert set(looks) == {1}


def test_a_slow_reader_holds_nothing_up_and_misses_nothing(job: Job) -> None:
    last = 200

    async def follow() -> None:
        feed = Feed(JobLog(held=20), poll_seconds=0.05)
        slow, quick = feed.follow(job.id, 0), feed.follow(job.id, 0)
        assert (await anext(slow)).startswith(b"id: 1\n")
        writer = run_beside(job.id, 4, last)
        assert await read(quick) == list(range(1, last + 2))
        writer.join()
        assert len(feed._tails[job.id].frames) == 20
        assert await read(slow) == list(range(2, last + 2))
        await stop(feed)

    asyncio.run(follow())


def test_a_quiet_stream_is_kept_alive(job: Job) -> None:
    async def follow() -> None:
        feed = Feed(keep_alive_seconds=0.01)
        assert await anext(feed.follow(job.id, 3)) == b": keep-alive\n\n"
        await stop(feed)

    asyncio.run(follow())


def test_a_database_that_is_away_for_a_while_ends_no_stream(job: Job) -> None:
    problems = iter([OperationalError("select", {}, Exception("away"))] * 2)

    class Flaky(JobLog):
        def news(self, seen: Mapping[str, int]) -> dict[str, News]:
            for problem in problems:
                raise problem
            return super().news(seen)

    end(job.id)

    async def follow() -> None:
        feed = Feed(Flaky(), poll_seconds=0.01)
        assert await read(feed.follow(job.id, 0)) == [1, 2, 3, 4]
        await stop(feed)

    asyncio.run(follow())


def test_a_feed_that_is_closed_ends_every_stream(job: Job) -> None:
    async def follow() -> None:
        feed = Feed()
        streams = [feed.follow(job.id, 3) for _ in range(3)]
        waiting = [asyncio.create_task(anext(stream)) for stream in streams]  # type: ignore[arg-type]
        await asyncio.sleep(0)
        feed.close()
        for farewell in await asyncio.gather(*waiting):
            assert b'"last_event_id": 3' in farewell
        assert (await anext(feed.follow(job.id, 1))).startswith(b"retry: ")
        await stop(feed)

    asyncio.run(follow())
