"""Makes one call to a server that speaks OpenAI's API, and names every way in which it can go wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx2 as httpx
import openai
from openai import omit

from app.grading.paces import Pace
from app.grading.patience import Gate, Transient, persevere, retry_after
from app.outbound import OutboundRules, ResponseTooLarge, TargetRefused, outbound_client
from graders import strict_json
from graders.strict_json import StrictJsonError
from graders.types import FailureKind, GradeFailed, TokenUsage

MAX_RESPONSE_BYTES = 4 * 2**20
"""Most bytes of a response from an address that a user gave."""
SHOWN = 500
TRANSIENT = frozenset({408, 409, 425, 429})
SPENT = "insufficient_quota"
"""OpenAI's code for an account that has no money left."""
PAYMENT_REQUIRED = 402
"""What others answer then."""
LONGER_THAN_ONE = 2.5
"""All tries of one question may take that many times as long as a single one."""
PACED_SECONDS = 600.0
"""How long one question may wait beside that for its places under a limit of calls a minute. Chosen, not
measured: a training puts a minute's calls in line (limits.py), so that ten may share a judge.
"""

Call = Callable[[openai.OpenAI], Any]


class ServerRefused(Exception):
    """The server refused to do this. `text` is what it said, without our key."""

    def __init__(self, status: int, text: str, code: str | None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.code = code

    @property
    def is_spent(self) -> bool:
        """Whether nothing more is answered until somebody pays."""
        return self.code == SPENT or self.status == PAYMENT_REQUIRED

    @property
    def is_transient(self) -> bool:
        """Whether the server may answer the same at another time."""
        return not self.is_spent and (self.status in TRANSIENT or self.status >= 500)

    def failure(self, where: str) -> GradeFailed:
        message = f"{where} answered {self.status}: {self.text}"
        if self.code == "content_filter":
            return GradeFailed(FailureKind.MODEL_REFUSAL, message)
        is_away = self.is_spent or self.is_transient
        return GradeFailed(FailureKind.MODEL_SERVER, message, is_away=is_away)


class OpenAIServer:
    """A server that speaks OpenAI's API, and how it is called. Safe to use from threads.

    With `rules` its address was given by a user, and only what they allow is called.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        where: str,
        concurrency: int,
        timeout: float,
        retries: int,
        rules: OutboundRules | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.where = where
        """Names it in messages: never with a key or a user's address in it."""
        self.longest = timeout * LONGER_THAN_ONE
        self._key = key
        self._timeout = timeout
        self._tries = retries + 1
        self._gate = Gate(concurrency, pace.per_second, pace.wait_seconds) if pace else Gate(concurrency)
        self._in_line = PACED_SECONDS if pace else 0.0
        self._client = _client(base_url, key, timeout, rules)

    def ask(self, call: Call) -> dict[str, Any]:
        """Returns the JSON object with which the server responds to a call, which returns the raw response.

        Raises `ServerRefused`, or `GradeFailed` once the server was given time enough.
        """
        seconds = self.longest + self._in_line
        return persevere(lambda left: self._once(call, left), tries=self._tries, seconds=seconds)

    def _once(self, call: Call, left: float) -> dict[str, Any]:
        started = time.monotonic()
        try:
            with self._gate.through():
                body = call(self._patient(left)).content
        except openai.APITimeoutError:
            raise self._transient(f"did not answer within {time.monotonic() - started:.0f} seconds") from None
        except openai.APIStatusError as error:
            raise self._refused(error) from None
        except (openai.APIConnectionError, httpx.HTTPError, ResponseTooLarge, TargetRefused) as error:
            raise self._not_reached(error) from None
        try:
            response = strict_json.loads(body)
        except StrictJsonError as error:
            raise self._transient(f"did not answer with JSON ({error})") from None
        if not isinstance(response, dict):
            raise self._transient("answered with JSON that is no object")
        return response

    def _patient(self, left: float) -> openai.OpenAI:
        """Returns a client that waits no longer than is left. To copy it costs a tenth of a call."""
        if left >= self._timeout:
            return self._client
        return self._client.with_options(timeout=max(left, 0.001))

    def _refused(self, error: openai.APIStatusError) -> Exception:
        refused = ServerRefused(error.status_code, self._said(error), error.code)
        if refused.is_transient:
            after = retry_after(error.response.headers)
            if after is not None:
                self._gate.pause(min(after, self.longest))
            return Transient(refused.failure(self.where), after)
        return refused

    def _not_reached(self, error: Exception) -> Exception:
        cause = error if isinstance(error, ResponseTooLarge | TargetRefused) else error.__cause__
        if isinstance(cause, ResponseTooLarge | TargetRefused):
            return self._failed(str(cause))
        # httpx's texts tell addresses of this network; its types say as much as a user needs.
        return self._transient(f"could not be reached ({type(cause or error).__name__})")

    def _said(self, error: openai.APIStatusError) -> str:
        body = error.body
        text = body.get("message") if isinstance(body, dict) else None
        text = text if isinstance(text, str) else error.response.text
        text = text.replace(self._key, "***") if self._key else text
        return text if len(text) <= SHOWN else text[:SHOWN] + "..."

    def _transient(self, what: str) -> Transient:
        return Transient(self._failed(what, is_away=True))

    def _failed(self, what: str, *, is_away: bool = False) -> GradeFailed:
        return GradeFailed(FailureKind.MODEL_SERVER, f"{self.where}: {what}", is_away=is_away)


def _client(base_url: str, key: str, timeout: float, rules: OutboundRules | None) -> openai.OpenAI:
    """Makes a client. Retries are ours. The environment's organisation is for nobody a user names."""
    options: dict[str, Any] = {
        "base_url": base_url,
        "api_key": key or "none",
        "max_retries": 0,
        "timeout": timeout,
    }
    if rules is not None:
        unsaid = {"OpenAI-Organization": omit, "OpenAI-Project": omit}
        http = outbound_client(rules, total_seconds=timeout, max_bytes=MAX_RESPONSE_BYTES)
        return openai.OpenAI(**options, http_client=http, default_headers=unsaid)  # type: ignore[arg-type]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    return openai.OpenAI(**options, http_client=openai.DefaultHttpxClient(limits=limits))


def usage_of(response: dict[str, Any]) -> TokenUsage:
    """Returns what the server says it has used in this call, and 0 of what it does not say."""
    usage = response.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"), cached)
    prompt, completion, known = (count if isinstance(count, int) and count > 0 else 0 for count in counts)
    return TokenUsage(prompt, completion, known, calls=1)
