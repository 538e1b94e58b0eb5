"""Calls tool servers as Azure does: one POST a call.

A server that answers 4xx tells the policy; one that fails is asked again, and then the episode is lost.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx

from app.grading.patience import Gate, Transient, persevere
from app.outbound import ResponseTooLarge, TargetRefused, read_at_most
from graders import strict_json
from graders.strict_json import StrictJsonError
from graders.types import FailureKind, GradeFailed
from workers.environments.tool import MAX_BYTES, Context, Output, error, too_large
from workers.training.base.parts import ToolCall
from workers.training.episodes.environment import EpisodeLost

SECONDS = 600.0
"""Seconds that one call may take, all tries together. Azure's bound."""
TRIES = 4
"""Calls of a server that fails: Azure repeats three times."""
SHOWN = 300
"""Characters of a server's answer that a message shows. Chosen, not measured."""


@dataclass(frozen=True)
class HttpTool:
    """Is a function behind a URL of the user's."""

    name: str
    url: str
    client: httpx.Client
    gate: Gate
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = SECONDS
    keeps_state: bool = False

    def call(self, call: ToolCall, call_id: str, context: Context) -> Output:
        body = json.dumps(_request(call, call_id, context), separators=(",", ":")).encode()
        if len(body) > MAX_BYTES:
            return too_large("The call with its row")
        try:
            return persevere(lambda left: self._once(body, call_id, left), tries=TRIES, seconds=self.seconds)
        except GradeFailed as failed:
            raise EpisodeLost(f"The tool server of '{self.name}' failed. {failed.failure.message}") from None

    def _once(self, body: bytes, call_id: str, left: float) -> Output:
        started = time.monotonic()
        headers = {**self.headers, "content-type": "application/json"}
        try:
            with (
                self.gate.through(),
                self.client.stream(
                    "POST", self.url, content=body, headers=headers, timeout=max(left, 0.001)
                ) as response,
            ):
                answer = read_at_most(response, MAX_BYTES)
        except TargetRefused as refused:
            raise _failed(str(refused)) from None
        except ResponseTooLarge:
            return too_large("The answer of the tool")
        except httpx.TimeoutException:
            waited = time.monotonic() - started
            raise Transient(_failed(f"It did not answer within {waited:.0f} seconds.")) from None
        except httpx.HTTPError as problem:
            raise Transient(_failed(f"It could not be reached ({type(problem).__name__}).")) from None
        return self._read(response.status_code, answer, call_id)

    def _read(self, status: int, answer: bytes, call_id: str) -> Output:
        told = self._shown(answer)
        if status >= 500:
            raise Transient(_failed(f"It answered {status}: {told}"))
        found = _output(answer)
        if 400 <= status < 500:
            return error(status, told) if found is None else Output(found["output"], is_error=True)
        if not 200 <= status < 300:
            raise _failed(f"It answered {status}: {told}")
        if found is None:
            raise _failed(f'It must answer {{"output": text}}, but answered: {told}')
        if found.get("call_id", call_id) != call_id:
            raise _failed(f"It answered another call than '{call_id}': {told}")
        return Output(found["output"])

    def _shown(self, answer: bytes) -> str:
        """Returns the beginning of an answer, without the headers' values that a server may give back."""
        text = answer.decode("utf-8", "replace")
        for secret in sorted(filter(None, self.headers.values()), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text[:SHOWN]


def _request(call: ToolCall, call_id: str, context: Context) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{uuid.uuid4().hex}",
        "call_id": call_id,
        "name": call.name,
        "arguments": json.dumps(call.arguments, ensure_ascii=False),
        "trace_id": context.trace_id,
        "item": dict(context.item),
    }


def _output(answer: bytes) -> dict[str, Any] | None:
    """Returns an answer with a text as its output; None for any other answer."""
    try:
        found = strict_json.loads(answer.decode("utf-8", "replace"), takes_any_character=True)
    except StrictJsonError:
        return None
    if not isinstance(found, dict) or "output" not in found:
        return None
    output = found["output"]
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    return {**found, "output": text}


def _failed(what: str) -> GradeFailed:
    return GradeFailed(FailureKind.TOOL_SERVER, what)
