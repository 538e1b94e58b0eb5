"""Sends one message, signed as Standard Webhooks says, to an address that was checked."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any

import httpx2 as httpx

from app.outbound import (
    OutboundRules,
    ResponseTooLarge,
    TargetRefused,
    outbound_client,
    read_at_most,
    rules_of,
)
from app.settings import Settings

SECRET_PREFIX = "whsec_"  # noqa: S105  # the standard's, in front of the base64 of the key
SECRET_BYTES = 32
MAX_RESPONSE_BYTES = 65536
"""Most bytes of a response. They are read so that the receiver can finish, and thrown away."""


@dataclass(frozen=True)
class WebhookMessage:
    """What is posted. `id` is the same on every attempt; each of `keys` makes a signature."""

    id: str
    url: str
    body: bytes
    keys: Sequence[bytes] = field(repr=False)


@dataclass(frozen=True)
class Outcome:
    """What came back: a status, or in our words why there is none."""

    status_code: int | None
    error: str | None

    @property
    def is_delivered(self) -> bool:
        return self.status_code is not None and 200 <= self.status_code < 300


def new_key() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def shown_secret(key: bytes) -> str:
    """Returns a key as its owner gets it."""
    return SECRET_PREFIX + base64.b64encode(key).decode()


def event_body(event_id: str, event_type: str, created_at: int, data: dict[str, Any]) -> str:
    """Returns the JSON text of an event."""
    event = {"id": event_id, "object": "event", "created_at": created_at, "type": event_type, "data": data}
    return json.dumps(event)


def headers(message: WebhookMessage, timestamp: int) -> dict[str, str]:
    """Returns the headers that go with a message sent at that time (Unix seconds)."""
    signed = f"{message.id}.{timestamp}.".encode() + message.body
    signatures = [hmac.new(key, signed, hashlib.sha256).digest() for key in message.keys]
    return {
        "content-type": "application/json",
        "webhook-id": message.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(each).decode()}" for each in signatures),
    }


def post(message: WebhookMessage, client: httpx.Client) -> Outcome:
    """Sends a message once. Redirects are a response like any other; nothing of a body is kept."""
    signed = headers(message, int(time.time()))
    try:
        with client.stream("POST", message.url, content=message.body, headers=signed) as response:
            read_at_most(response, MAX_RESPONSE_BYTES)
    except TargetRefused as refused:
        return Outcome(None, str(refused))
    except ResponseTooLarge:
        pass  # its status has come
    except httpx.HTTPError as problem:
        return Outcome(None, _words(problem))
    except httpx.InvalidURL:
        return Outcome(None, "The URL cannot be read.")
    status = response.status_code
    if 200 <= status < 300:
        return Outcome(status, None)
    redirect = "; redirects are not followed" if 300 <= status < 400 else ""
    return Outcome(status, f"The receiver answered {status}{redirect}.")


def client_of(settings: Settings) -> httpx.Client:
    """Returns the client of this process, which may be used by several threads."""
    return _client(rules_of(settings), settings.webhook_timeout)


@lru_cache
def _client(rules: OutboundRules, timeout: timedelta) -> httpx.Client:
    return outbound_client(rules, total_seconds=timeout.total_seconds())


def _words(problem: httpx.HTTPError) -> str:
    if isinstance(problem, httpx.TimeoutException):
        return "The receiver did not answer in time."
    if isinstance(problem, httpx.ConnectError):
        if "certificate" in str(problem).lower():
            return "The receiver's certificate is not valid for its name."
        return "No connection to the receiver could be made."
    return "The connection to the receiver broke off before it answered."
