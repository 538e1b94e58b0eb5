"""Calls the servers of `endpoint` graders: it posts JSON and gets JSON."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Any

import httpx2 as httpx

from app.grading.patience import Gate, Transient, persevere, retry_after
from app.outbound import (
    OutboundRules,
    ResponseTooLarge,
    TargetRefused,
    check_url,
    outbound_client,
    read_at_most,
)
from graders import strict_json
from graders.services import EndpointRequest
from graders.strict_json import StrictJsonError
from graders.types import FailureKind, GradeFailed, GraderInvalid

MAX_BYTES = 2**20
"""Most bytes of a request's body, and of a response's."""
SECONDS = 600.0
"""Seconds that one grade may take, all tries together."""
TRIES = 4
SHOWN = 300
TRANSIENT = frozenset({408, 425, 429})
MAX_GATES = 1024


class Endpoints:
    """Calls the URLs that graders name, as far as the operator's rules allow it. Safe to use from threads."""

    def __init__(self, rules: OutboundRules, concurrency: int, seconds: float = SECONDS) -> None:
        self._rules = rules
        self._concurrency = concurrency
        self._seconds = seconds
        self._client = outbound_client(rules, total_seconds=seconds)
        self._gates: dict[tuple[str, float | None], Gate] = {}
        self._lock = threading.Lock()

    def check(self, url: str) -> None:
        """Raises `GraderInvalid`."""
        try:
            check_url(url, self._rules)
        except TargetRefused as refused:
            raise GraderInvalid(str(refused), param="url") from None

    def post(self, request: EndpointRequest) -> Any:
        """Raises `GradeFailed`."""
        body = json.dumps(request.body, separators=(",", ":")).encode()
        if len(body) > MAX_BYTES:
            message = (
                f"Sample and item make {len(body)} bytes; an endpoint grader is sent {MAX_BYTES} at most."
            )
            raise GradeFailed(FailureKind.ENDPOINT_INTERNAL, message)
        gate = self._gate(request)
        return persevere(
            lambda left: self._once(request, body, gate, left), tries=TRIES, seconds=self._seconds
        )

    def _gate(self, request: EndpointRequest) -> Gate:
        of = (request.url, request.rate_limit)
        with self._lock:
            if of not in self._gates:
                if len(self._gates) >= MAX_GATES:
                    del self._gates[next(iter(self._gates))]
                self._gates[of] = Gate(self._concurrency, request.rate_limit)
            return self._gates[of]

    def _once(self, request: EndpointRequest, body: bytes, gate: Gate, left: float) -> Any:
        started = time.monotonic()
        headers = {**request.headers, "content-type": "application/json"}
        try:
            with (
                gate.through(),
                self._client.stream(
                    "POST", request.url, content=body, headers=headers, timeout=max(left, 0.001)
                ) as response,
            ):
                answer = read_at_most(response, MAX_BYTES)
        except TargetRefused as refused:
            raise GradeFailed(FailureKind.ENDPOINT_INTERNAL, str(refused)) from None
        except ResponseTooLarge as error:
            raise _failed(str(error)) from None
        except httpx.TimeoutException:
            waited = time.monotonic() - started
            raise _away(f"It did not answer within {waited:.0f} seconds.") from None
        except httpx.HTTPError as error:
            raise _away(f"It could not be reached ({type(error).__name__}).") from None
        return _read(response, answer, gate, request.headers)


def _read(response: httpx.Response, answer: bytes, gate: Gate, secrets: Mapping[str, str]) -> Any:
    status, said = response.status_code, _shown(answer, secrets)
    if status in TRANSIENT or status >= 500:
        after = retry_after(response.headers)
        if after is not None:
            gate.pause(min(after, SECONDS))
        raise _away(f"It answered {status}: {said}", after)
    if not 200 <= status < 300:
        raise _failed(f"It answered {status}: {said}")
    try:
        return strict_json.loads(answer)
    except StrictJsonError as error:
        raise _failed(f"It did not answer with JSON ({error}): {said}") from None


def _away(what: str, after: float | None = None) -> Transient:
    return Transient(_failed(what, is_away=True), after)


def _failed(what: str, *, is_away: bool = False) -> GradeFailed:
    return GradeFailed(FailureKind.ENDPOINT_SERVER, f"The grading server failed. {what}", is_away=is_away)


def _shown(answer: bytes, secrets: Mapping[str, str]) -> str:
    """Returns the beginning of a response, without the headers' values that a server may give back."""
    text = answer.decode("utf-8", "replace")
    for secret in sorted(filter(None, secrets.values()), key=len, reverse=True):
        text = text.replace(secret, "***")
    return repr(text[:SHOWN])
