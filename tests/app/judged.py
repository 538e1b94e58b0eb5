"""Holds every JSON response of the service under test against OpenAI's published document."""

from __future__ import annotations

import json
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.app import openai_schema

PREFIX = "/v1"


class Judged:
    """An ASGI layer around the service. `faults` fills with what the document has against its responses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.faults: list[str] = []
        self.count = 0
        """Responses that were looked at."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        status, is_json, body = 0, False, bytearray()

        async def listen(message: Message) -> None:
            nonlocal status, is_json
            if message["type"] == "http.response.start":
                status = message["status"]
                is_json = (b"content-type", b"application/json") in message["headers"]
            elif is_json:
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    self._judge(scope, status, json.loads(body))
            await send(message)

        await self._app(scope, receive, listen)

    def _judge(self, scope: Scope, status: int, body: Any) -> None:
        path = scope["path"].removeprefix(PREFIX)
        self.count += 1
        found = openai_schema.faults_of_response(scope["method"], path, status, body)
        self.faults += [f"{scope['method']} {path} -> {status}: {fault}" for fault in found]
