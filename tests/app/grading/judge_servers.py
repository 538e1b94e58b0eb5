"""Servers that tests have called as judges, embedding models and grading servers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from app.grading.judges import Judges, TenantJudge
from app.settings import Settings
from graders import Grade, Grader, Sample, build_grader, parse_grader
from graders.services import Services
from tests.app.webhooks.receivers import Received, Receiver, receiver

Answered = tuple[int, dict[str, str], bytes]
Answering = Callable[[Received], Answered | None]

KEY = "sk-secret-0123456789"
GRADER = {
    "type": "score_model",
    "name": "tone",
    "model": "judge",
    "input": [
        {"role": "developer", "content": "Be strict."},
        {"role": "user", "type": "message", "content": "Rate: {{sample.output_text}}"},
    ],
}


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


def judges_at(server: Receiver, **entry: Any) -> Judges:
    """The judge of the settings is this server."""
    place = {"base_url": f"http://127.0.0.1:{server.port}/v1", "key": "main", "retries": 2, **entry}
    return Judges(settings_with(judges={"judge": place}, judge_keys={"main": {"key": KEY}}))


def grader_of(judges: Judges, tenant: str = "proj_a", **spec: Any) -> Grader:
    services = Services(judge=TenantJudge(judges, tenant))
    return build_grader(parse_grader({**GRADER, **spec}), services)


def graded(answer: Answering | Answered, text: str = "hello", **entry: Any) -> Grade:
    """What a judge that answers so makes of a completion."""
    answering = answer if callable(answer) else lambda _: answer
    with receiver(answering) as server:
        return grader_of(judges_at(server, **entry)).grade(Sample(text), {})


def in_turn(*answers: Answered | None) -> Answering:
    """These answers one after another, then the last one again and again."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]
