"""Holds every response of the service under test against OpenAI's published document and its own."""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from app.http.azure import served_path
from tests.app.http import openai_schema

PREFIX = "/v1"


def own_document(judged: Judged) -> dict[str, Any]:
    """The document that the service has of itself."""
    document: dict[str, Any] = judged.service.openapi()
    return document


class Judged:
    """An ASGI layer around the service. `faults` fills with what the documents have against its responses."""

    def __init__(self, app: Any) -> None:
        self.service = app
        self.faults: list[str] = []
        self.count = 0
        """Responses that were looked at."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not served_path(scope["path"]).startswith(PREFIX):
            await self.service(scope, receive, send)
            return
        asked, scope = scope, {**scope, "path": served_path(scope["path"])}
        status, is_json, body = 0, False, bytearray()

        async def listen(message: Message) -> None:
            nonlocal status, is_json
            if message["type"] == "http.response.start":
                status = message["status"]
                self._judge_status(scope, status)
                is_json = (b"content-type", b"application/json") in message["headers"]
            elif is_json:
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    self._judge(scope, status, json.loads(body))
            await send(message)

        await self.service(asked, receive, listen)

    @cached_property
    def _documented(self) -> list[tuple[str, re.Pattern[str], set[int]]]:
        """Method, path and statuses of each operation in the service's own document."""
        return [
            (method.upper(), re.compile(_pattern(path)), {int(status) for status in operation["responses"]})
            for path, methods in own_document(self)["paths"].items()
            for method, operation in methods.items()
        ]

    def _judge_status(self, scope: Scope, status: int) -> None:
        method, path = scope["method"], scope["path"]
        allowed = [known for m, pattern, known in self._documented if m == method and pattern.fullmatch(path)]
        if allowed and status not in set.union(*allowed):
            self.faults.append(f"{method} {path} -> {status}: a status that our own document does not name")

    def _judge(self, scope: Scope, status: int, body: Any) -> None:
        path = scope["path"].removeprefix(PREFIX)
        self.count += 1
        found = openai_schema.faults_of_response(scope["method"], path, status, body)
        self.faults += [f"{scope['method']} {path} -> {status}: {fault}" for fault in found]


def _pattern(path: str) -> str:
    """A path with variables as a regular expression; a `:path` variable may hold slashes."""
    escaped = re.sub(r"\\{\w+:path\\}", ".+", re.escape(path))
    return re.sub(r"\\{\w+\\}", "[^/]+", escaped)
