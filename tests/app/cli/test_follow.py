"""`cherry jobs follow`: live, over lost connections, and by asking again where nothing is streamed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import httpx2 as httpx
import openai
import pytest
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app.cli.following import Pace, follow
from app.cli.main import cli
from app.jobs.models import Job
from app.settings import get_settings
from tests.app.events.growing_logs import end, tell
from tests.app.webhooks.receivers import Received, receiver
from tests.factories import Tenant, make_job

Answer = tuple[int, dict[str, str], bytes] | None


@pytest.fixture
def job(db: Session, tenant: Tenant) -> Job:
    """A job that waits, with two events."""
    made = make_job(db, tenant.project_id)
    db.commit()
    tell(made.id, 1, 2)
    return made


class Recording(openai.OpenAI):
    """The official client, which remembers what it and its copies have asked for."""

    asked: ClassVar[list[str]] = []

    def _prepare_request(self, request: Any) -> None:
        self.asked.append(str(request.url))


@pytest.fixture
def official(server_url: str, tenant: Tenant) -> Iterator[Recording]:
    Recording.asked.clear()
    with Recording(base_url=f"{server_url}/v1", api_key=tenant.key, max_retries=0) as made:
        yield made


SOON = Pace(poll_seconds=0.05, reconnect_seconds=0.01)


def messages(client: openai.OpenAI, job_id: str, pace: Pace = SOON) -> list[str]:
    return [event.message for event in follow(client, job_id, pace)]


def follow_to_the_end(official: openai.OpenAI, job: Job) -> None:
    """Two events are there, a third comes, the job ends: each arrives as it happens."""
    coming = follow(official, job.id, SOON)
    assert [next(coming).message for _ in range(2)] == ["event 1", "event 2"]
    tell(job.id, 3, 3)
    assert next(coming).message == "event 3"
    end(job.id)
    assert [event.message for event in coming] == ["The job was cancelled"]


def test_events_come_live_until_the_job_is_over(official: Recording, job: Job) -> None:
    follow_to_the_end(official, job)
    assert ["stream=true" in url for url in official.asked] == [True], "one stream, and no list"


def test_the_command_prints_each_event_as_the_list_has_it(
    server_url: str, official: openai.OpenAI, tenant: Tenant, job: Job
) -> None:
    end(job.id)
    place = ["--url", server_url, "--key", tenant.key]
    followed = CliRunner().invoke(cli, ["jobs", "follow", job.id, "--json", *place])
    assert followed.exit_code == 1, "it did not succeed"
    listed = official.fine_tuning.jobs.list_events(job.id).data
    assert [json.loads(line) for line in followed.output.splitlines()] == [
        event.to_dict(mode="json") for event in listed[::-1]
    ]


def test_where_all_followers_have_their_place_the_list_is_asked_for(
    http: httpx.Client, official: Recording, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHERRY_MAX_FOLLOWERS", "1")
    get_settings.cache_clear()
    with http.stream("GET", f"/v1/fine_tuning/jobs/{job.id}/events?stream=true") as other:
        lines = other.iter_lines()
        next(lines)
        follow_to_the_end(official, job)
        assert any("events?limit=100" in url for url in official.asked)
        list(lines)


def test_a_job_that_is_not_there_is_an_error(official: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        messages(official, "ftjob-none")


# A service that plays what networks and restarts do.


def frames(*numbers: int, then: str = "") -> bytes:
    data = [{"id": f"ftevent-{n}", "message": f"event {n}", "object": "e", "created_at": n} for n in numbers]
    told = [f"id: {n}\ndata: {json.dumps(each)}\n\n" for n, each in zip(numbers, data, strict=True)]
    return (": hello\n\n" + "".join(told) + then).encode()


def streamed(body: bytes, **headers: str) -> Answer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return 200, {"content-type": "text/event-stream; charset=utf-8", **names}, body


def played(*answers: Answer, pace: Pace = SOON) -> tuple[list[str], list[str | None]]:
    """What is told where the service answers so, one answer after another, and the places asked for."""
    left = list(answers)
    lock = threading.Lock()

    def next_answer(_: Received) -> Answer:
        with lock:
            return left.pop(0)

    with receiver(next_answer) as server:
        with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="k") as client:
            told = messages(client, "ftjob-1", pace)
        assert left == []
        assert all("stream=true" in each.path for each in server.received)
        return told, [each.headers.get("last-event-id") for each in server.received]


DONE = "data: [DONE]\n\n"
SHUTDOWN = 'retry: 1000\nevent: shutdown\ndata: {"message": "stops", "last_event_id": 2}\n\n'


@pytest.mark.parametrize(
    "lost",
    [
        pytest.param(lambda: streamed(frames(1, 2, then=SHUTDOWN)), id="the server stops"),
        pytest.param(lambda: streamed(frames(1, 2)), id="the stream ends"),
        pytest.param(lambda: streamed(frames(1, 2), content_length="99999"), id="the connection breaks"),
        pytest.param(lambda: streamed(frames(1, 2, then="id: 3\nda")), id="in the middle of an event"),
    ],
)
def test_a_lost_stream_goes_on_behind_the_last_event(lost: Callable[[], Answer]) -> None:
    told, asked = played(lost(), None, (502, {}, b"proxy"), streamed(frames(3, then=DONE)))
    assert told == ["event 1", "event 2", "event 3"]
    assert asked == [None, "2", "2", "2"]


def test_a_job_that_ended_meanwhile_has_nothing_more() -> None:
    told, asked = played(streamed(frames(1)), (204, {}, b""))
    assert (told, asked) == (["event 1"], [None, "1"])


def test_a_service_that_stays_away_is_an_error() -> None:
    impatient = Pace(reconnect_seconds=0.01, away_seconds=0.05)
    with pytest.raises(openai.APIConnectionError):
        played(streamed(frames(1)), *[None] * 100, pace=impatient)
