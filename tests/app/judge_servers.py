"""Servers that tests have called as judges, embedding models and grading servers."""

from __future__ import annotations

import json
from typing import Any

from app.settings import Settings
from tests.app.receivers import Received

Answered = tuple[int, dict[str, str], bytes]


def answered(body: Any, status: int = 200, **headers: str) -> Answered:
    """A JSON answer."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"content-type": "application/json", **names}, json.dumps(body).encode()


def said(content: str | None, *, finish_reason: str = "stop", cached: int = 0, **message: Any) -> Answered:
    """A chat completion that used 100 and 10 tokens."""
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "total_tokens": 110,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    choice = {
        "index": 0,
        "finish_reason": finish_reason,
        "message": {"role": "assistant", "content": content, **message},
    }
    return answered(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
            "usage": usage,
        }
    )


def scored(result: Any, **more: Any) -> Answered:
    """A judge that follows the protocol."""
    return said(
        json.dumps({"steps": [{"description": "reads", "conclusion": "fine"}], "result": result}), **more
    )


def refused(status: int, message: str, code: str | None = None, **headers: str) -> Answered:
    """An error in OpenAI's form."""
    error = {"message": message, "type": "error", "param": None, "code": code}
    return answered({"error": error}, status, **headers)


def asked(received: Received) -> dict[str, Any]:
    """The body of a request."""
    return dict(json.loads(received.body))


def settings_with(**values: Any) -> Settings:
    """An operator's settings, with no database and no broker behind them."""
    return Settings(
        DATABASE_URL="postgresql://nobody@nowhere/nothing", broker_url="filesystem://nowhere", **values
    )
