"""Follows a job over the API: live, or by asking again and again where the service streams nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import FineTuningJobEvent

OVER = ("succeeded", "failed", "cancelled")
SILENT_SECONDS = 60.0
"""How long a stream may be silent before it is taken to be lost: the service says something every 15 s."""
DONE = "[DONE]"


@dataclass(frozen=True)
class Pace:
    """How often the service is asked, and how long a service that was there may be away."""

    poll_seconds: float = 1.0
    reconnect_seconds: float = 1.0
    away_seconds: float = 60.0


class NoStream(Exception):
    """The service streams nothing to us: it is another one, or has all the followers that it takes."""


class Frame(NamedTuple):
    """One server-sent event. `number` is empty if it has none."""

    number: str
    kind: str
    data: str


def follow(client: OpenAI, job_id: str, pace: Pace = Pace()) -> Iterator[FineTuningJobEvent]:
    """Yields each event of a job once, oldest first, until the job is over.

    It makes a connection that is lost again, behind the last event. Raises the client's errors.
    """
    seen: set[str] = set()
    try:
        yield from _streamed(client, job_id, seen, pace)
    except NoStream:
        yield from _polled(client, job_id, seen, pace.poll_seconds)


def _streamed(client: OpenAI, job_id: str, seen: set[str], pace: Pace) -> Iterator[FineTuningJobEvent]:
    import httpx2 as httpx
    from openai import APIConnectionError, InternalServerError
    from openai.types.fine_tuning import FineTuningJobEvent

    number, heard = "", time.monotonic()
    while True:
        try:
            for frame in _frames(client, job_id, number):
                heard = time.monotonic()
                if frame.data == DONE:
                    return
                if frame.kind == "shutdown":
                    break
                event = FineTuningJobEvent.construct(**json.loads(frame.data))
                number = frame.number
                seen.add(event.id)
                yield event
        except (httpx.HTTPError, APIConnectionError, InternalServerError):
            if time.monotonic() > heard + pace.away_seconds:
                raise
        time.sleep(pace.reconnect_seconds)


def _frames(client: OpenAI, job_id: str, after: str) -> Iterator[Frame]:
    """Yields what one connection gives. Raises `NoStream`."""
    from openai import InternalServerError

    streaming = client.with_options(max_retries=0).fine_tuning.jobs.with_streaming_response
    headers = {"last-event-id": after} if after else {}
    try:
        with streaming.list_events(
            job_id, extra_query={"stream": "true"}, extra_headers=headers, timeout=SILENT_SECONDS
        ) as response:
            if response.status_code == 204:  # the job is over, and we have seen its end
                yield Frame(after, "", DONE)
                return
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise NoStream
            yield from _parsed(response.iter_lines())
    except InternalServerError as refused:
        if refused.status_code == 503:
            raise NoStream from None
        raise


def _parsed(lines: Iterable[str]) -> Iterator[Frame]:
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name:
            fields[name] = value.removeprefix(" ")
        elif not line and "data" in fields:
            yield Frame(fields.get("id", ""), fields.get("event", ""), fields["data"])
            fields = {}


def _polled(client: OpenAI, job_id: str, seen: set[str], seconds: float) -> Iterator[FineTuningJobEvent]:
    while True:
        job = client.fine_tuning.jobs.retrieve(job_id)  # before its events: none is missed at the end
        yield from _new_events(client, job_id, seen)
        if job.status in OVER:
            return
        time.sleep(seconds)


def _new_events(client: OpenAI, job_id: str, seen: set[str]) -> list[FineTuningJobEvent]:
    """Returns the events that were not seen yet, oldest first."""
    new: list[FineTuningJobEvent] = []
    for event in client.fine_tuning.jobs.list_events(job_id, limit=100):
        if event.id in seen:
            break
        seen.add(event.id)
        new.append(event)
    return new[::-1]
