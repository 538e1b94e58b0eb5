"""Asks a model for its answers: one of this service through its sampler, or one of another server."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from anyio.from_thread import BlockingPortal

from app.auth import Caller
from app.errors import ApiError, RateLimited, ServerError, TooManyRequests, Unavailable
from app.evals.answerers import Answerer
from app.evals.answers import Answer, Messages
from app.grading.openai_calls import LONGER_THAN_ONE, ServerRefused, usage_of
from app.grading.own_models import CONCURRENCY, TIMEOUT_SECONDS
from app.grading.patience import Transient, persevere
from app.grading.services import judges
from app.inference.backend import Asker, backend_of
from app.inference.reply import Choice, Usage, whole
from app.inference.tools import OF_CHATS, offered, refusals_of_tools
from app.settings import Settings
from graders import GraderInvalid
from graders.types import FailureKind, GradeFailed, Sample, TokenUsage
from methods.messages import text_of
from workers.evals.faults import AnswerFailed, RunInvalid

TRIES = 5
"""Calls for one answer, where the sampler is away or has too much to do. Chosen, not measured."""
AGAIN = (Unavailable, TooManyRequests, RateLimited, ServerError)
"""What the sampler says that may be otherwise in a moment."""


class Model(Protocol):
    """Who answers. It is safe to ask from many threads."""

    @property
    def at_once(self) -> int:
        """Returns how many questions it can make use of at a time."""

    def answer(self, messages: Messages) -> Answer:
        """Returns the answer to a conversation. Raises `AnswerFailed`."""


def model_of(
    answerer: Answerer,
    run_id: str,
    project_id: str,
    sampling: Mapping[str, Any],
    settings: Settings,
    portal: BlockingPortal,
) -> Model:
    """Returns who answers in a run. Raises `RunInvalid` where it cannot be asked."""
    if answerer.kind == "own":
        for fault in refusals_of_tools(sampling.get("tools"), None, OF_CHATS):
            raise RunInvalid(fault.code or fault.type, fault.message)
        return OwnModel(answerer.model, run_id, project_id, sampling, settings, portal)
    try:
        return OtherModel(answerer, project_id, sampling, settings)
    except GraderInvalid as fault:
        raise RunInvalid(fault.code, fault.message) from None


class OwnModel:
    """A model of this service, asked as chats ask it."""

    def __init__(
        self,
        name: str,
        run_id: str,
        project_id: str,
        sampling: Mapping[str, Any],
        settings: Settings,
        portal: BlockingPortal,
    ) -> None:
        self.at_once = min(CONCURRENCY, settings.asking_concurrency)
        self._name = name
        self._asker = Asker(Caller(run_id, project_id, ""), run_id)
        self._sampling = dict(sampling)
        if tools := offered(sampling.get("tools"), None, OF_CHATS).tools:
            self._sampling["tools"] = tools
        self._settings = settings
        self._portal = portal

    def answer(self, messages: Messages) -> Answer:
        body = {**self._sampling, "messages": list(messages)}
        seconds = TIMEOUT_SECONDS * LONGER_THAN_ONE
        try:
            choice, usage = persevere(lambda _left: self._once(body), tries=TRIES, seconds=seconds)
        except GradeFailed as failed:
            raise AnswerFailed("server_error", failed.failure.message, is_outage=True) from None
        sample = Sample(
            choice.text,
            choice.finish_reason,
            [call.chat_form for call in choice.calls],
            output_tokens=usage.completion,
            output_thoughts=choice.thoughts or None,
        )
        return Answer(sample, self._name, TokenUsage(usage.prompt, usage.completion, usage.cached, calls=1))

    def _once(self, body: Mapping[str, Any]) -> tuple[Choice, Usage]:
        try:
            found: tuple[Choice, Usage] = self._portal.call(self._ask, body)
            return found
        except AGAIN as fault:
            after = float(fault.headers.get("retry-after", math.nan))
            failed = GradeFailed(FailureKind.MODEL_SERVER, fault.message)
            raise Transient(failed, None if math.isnan(after) else after) from None
        except ApiError as fault:
            code = fault.code or fault.type
            raise AnswerFailed(code, fault.message, is_outage=code == "model_not_found") from None

    async def _ask(self, body: Mapping[str, Any]) -> tuple[Choice, Usage]:
        backend = backend_of(self._settings)
        reply = await backend.ask(self._asker, self._name, "chat/completions", body)
        choices = await whole(reply)
        return choices[0], reply.usage


class OtherModel:
    """A model of another server that speaks OpenAI's API."""

    def __init__(
        self, answerer: Answerer, project_id: str, sampling: Mapping[str, Any], settings: Settings
    ) -> None:
        """Raises `GraderInvalid` for a server that must not be asked."""
        self._entry, self._server = judges().answerer(project_id, answerer.target)
        self.at_once = min(self._entry.concurrency, settings.asking_concurrency)
        self._name = answerer.model
        self._sampling = dict(sampling)
        if (limit := self._sampling.pop("max_completion_tokens", None)) is not None:
            self._sampling[self._entry.max_tokens_name] = limit

    def answer(self, messages: Messages) -> Answer:
        try:
            response = self._server.ask(lambda client: self._call(client, messages))
        except ServerRefused as refused:
            message = refused.failure(self._server.where).failure.message
            raise AnswerFailed(refused.code or "refused", message) from None
        except GradeFailed as failed:
            raise AnswerFailed("server_error", failed.failure.message, is_outage=True) from None
        return self._read(response)

    def _call(self, client: Any, messages: Messages) -> Any:
        return client.chat.completions.with_raw_response.create(
            model=self._entry.model or self._name, messages=list(messages), extra_body=self._sampling
        )

    def _read(self, response: Mapping[str, Any]) -> Answer:
        choices = response.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        if choice is None or not isinstance(message, dict):
            raise AnswerFailed("server_error", f"{self._server.where} answered with no message.")
        calls = message.get("tool_calls")
        sample = Sample(
            output_text=text_of(message.get("content") or message.get("refusal")),
            finish_reason=str(choice.get("finish_reason") or "stop"),
            output_tools=tuple(calls) if isinstance(calls, list) else (),
        )
        return Answer(sample, self._name, usage_of(dict(response)))
