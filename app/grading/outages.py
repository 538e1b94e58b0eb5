"""Waits for servers that are down while a job is trained, and says for good which one was waited for in vain.

A call that a server did not answer is made again, unless others are answered there meanwhile. Once nobody was
for the limit, the server counts as lost: everything that is asked from then on fails at once, with
`Failure.lost`, by which the training pauses instead of taking an outage for bad answers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from graders.services import (
    EmbeddedTexts,
    Embedder,
    EndpointCaller,
    EndpointRequest,
    Judge,
    Question,
    Reply,
    Services,
    Target,
)
from graders.types import GradeFailed

T = TypeVar("T")

AGAIN_SECONDS = 5.0
"""The wait before a call is made again whose own retries were in vain. Chosen, not measured: a server that
comes back is found within seconds, and one that stays away is asked a few dozen times in all."""
FAILED_BESIDE = 2
"""So often a call may fail while its server answers others, before it is the call that has failed. Once
is not enough: a server that goes down breaks calls that began before its last answers."""


@dataclass
class _Server:
    """Knows of one server when it last answered anybody, and since when it has answered nobody."""

    answered_at: float = -1.0
    silent_since: float | None = None


class Outages:
    """What is known of the servers that one training asks. Safe to use from threads."""

    def __init__(self, limit: float, again: float = AGAIN_SECONDS) -> None:
        """`limit` is how long a server may answer nobody, and `again` the wait between calls, in seconds."""
        self._limit = limit
        self._again = again
        self._servers: dict[str, _Server] = {}
        self._lock = threading.Lock()
        self._is_lost = threading.Event()
        self._lost: GradeFailed | None = None

    def through(self, name: str, call: Callable[[], T]) -> T:
        """Returns what `call` returns; while the server named so answers nobody it is made again.

        Raises `GradeFailed`.
        """
        beside = 0
        while True:
            if self._lost is not None:
                raise self._lost
            started = time.monotonic()
            try:
                found = call()
            except GradeFailed as failed:
                if not failed.is_away:
                    self._answered(name)
                    raise
                beside += self._has_answered(name, since=started)
                if beside == FAILED_BESIDE:
                    raise
                self._check(name, started, failed)
            else:
                self._answered(name)
                return found
            self._is_lost.wait(min(self._again, self._limit / 4))

    def _answered(self, name: str) -> None:
        with self._lock:
            server = self._servers.setdefault(name, _Server())
            server.answered_at, server.silent_since = time.monotonic(), None

    def _has_answered(self, name: str, since: float) -> bool:
        """Tells whether a server has answered anybody since then."""
        with self._lock:
            return self._servers.setdefault(name, _Server()).answered_at > since

    def _check(self, name: str, started: float, failed: GradeFailed) -> None:
        """Takes note that a call begun at `started` was not answered; raises once the limit is reached."""
        with self._lock:
            server = self._servers.setdefault(name, _Server())
            if server.answered_at > started:
                return
            server.silent_since = started if server.silent_since is None else server.silent_since
            silent = time.monotonic() - server.silent_since
            if silent < self._limit:
                return
            if self._lost is None:
                self._lost = _lost(name, silent, failed)
            self._is_lost.set()
            raise self._lost


def _lost(name: str, seconds: float, failed: GradeFailed) -> GradeFailed:
    failure = failed.failure
    said = f"{name} has answered nothing for {seconds:.0f} seconds; its last error: {failure.message}"
    return GradeFailed(failure.kind, failure.message, usage=failed.usage, lost=said)


class PatientJudge:
    """Asks a judge, and waits for it while it is down."""

    def __init__(self, judge: Judge, outages: Outages) -> None:
        self._judge = judge
        self._outages = outages

    def check(self, target: Target, sampling: Mapping[str, Any], media: frozenset[str]) -> None:
        self._judge.check(target, sampling, media)

    def ask(self, question: Question) -> Reply:
        target = question.target
        where = f" at {urlsplit(target.base_url).hostname}" if target.base_url else ""
        return self._outages.through(f"The judge '{target.model}'{where}", lambda: self._judge.ask(question))


class PatientEndpoint:
    """Calls grading servers, and waits for them while they are down."""

    def __init__(self, endpoint: EndpointCaller, outages: Outages) -> None:
        self._endpoint = endpoint
        self._outages = outages

    def check(self, url: str) -> None:
        self._endpoint.check(url)

    def post(self, request: EndpointRequest) -> Any:
        name = f"The grading server at {urlsplit(request.url).hostname}"
        return self._outages.through(name, lambda: self._endpoint.post(request))


class PatientEmbedder:
    """Asks the embedding model, and waits for it while it is down."""

    def __init__(self, embedder: Embedder, outages: Outages) -> None:
        self._embedder = embedder
        self._outages = outages

    def embed(self, texts: Sequence[str]) -> EmbeddedTexts:
        return self._outages.through("The embedding model", lambda: self._embedder.embed(texts))


def with_patience(services: Services, limit: float, again: float = AGAIN_SECONDS) -> Services:
    """Returns the services of one training, which wait for servers that are down; as they are at limit 0."""
    if limit <= 0:
        return services
    outages = Outages(limit, again)
    return replace(
        services,
        judge=services.judge and PatientJudge(services.judge, outages),
        endpoint=services.endpoint and PatientEndpoint(services.endpoint, outages),
        embedder=services.embedder and PatientEmbedder(services.embedder, outages),
    )
