"""Asks one judge model, in the strictest form that its server knows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import httpx2 as httpx
import structlog

from app.grading.openai_calls import OpenAIServer, ServerRefused, usage_of
from app.table_settings import JudgeEntry
from graders.services import Question, Reply
from graders.types import FailureKind, GradeFailed

log = structlog.get_logger(__name__)

Form = Literal["json_schema", "json_object", "text"]
LESS: Mapping[Form, Form] = {"json_schema": "json_object", "json_object": "text"}
"""What is asked of a server for which the first form is too much."""
UNKNOWN_FORM = ("response_format", "json_schema", "json_object", "schema", "guided", "grammar", "structured")
"""Words in an error by which a server says that it cannot be made to reply in a form."""
EFFORT = "reasoning_effort"
UNKNOWN_EFFORT = ("reasoning", "thinking")
"""Words in an error by which a server says that a model does not know that, or not this value of it."""
REFUSED_PARAMETER = frozenset({400, 422})


class Counted:
    """A call that knows how often it was made."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self._call = call
        self.times = 0

    def __call__(self, client: Any) -> Any:
        self.times += 1
        return self._call(client)


class Judge:
    """One judge: its server, and the form in which that replies, as far as is known by now."""

    def __init__(self, entry: JudgeEntry, server: OpenAIServer) -> None:
        self.entry = entry
        self.server = server
        self._form: Form = "json_schema" if entry.reply == "auto" else entry.reply
        self._without_effort: frozenset[str] = frozenset()
        """Models of the server that do not know `reasoning_effort`."""
        self._lock = threading.Lock()

    def ask(self, question: Question) -> Reply:
        """Raises `GradeFailed`."""
        while True:
            form, sampling = self._form, self._sampling(question)
            call = Counted(partial(self._call, question=question, sampling=sampling, form=form))
            try:
                return replace(self._read(self.server.ask(call), question), tries=call.times)
            except ServerRefused as refused:
                drops = EFFORT in sampling and self._drops_effort(question.target.model, refused)
                has_form = question.schema is not None
                if not drops and not (has_form and self._asks_less(form, refused)):
                    raise refused.failure(self.server.where) from None

    def _sampling(self, question: Question) -> dict[str, Any]:
        """Returns the parameters that the model is known to take, or not known not to."""
        left_out = {EFFORT} if question.target.model in self._without_effort else set()
        return {name: value for name, value in question.sampling.items() if name not in left_out}

    def _call(self, client: Any, *, question: Question, sampling: dict[str, Any], form: Form) -> Any:
        sampling = dict(sampling)
        if (limit := sampling.pop("max_completion_tokens", None)) is not None:
            sampling[self.entry.max_tokens_name] = limit
        body = {"model": self.entry.model or question.target.model, "messages": list(question.messages)}
        # `chat.completions.create` looks through all of the messages first, which takes as long as the rest.
        return client.post(
            "/chat/completions",
            cast_to=httpx.Response,
            body=body | sampling | _response_format(question, form),
        )

    def _drops_effort(self, model: str, refused: ServerRefused) -> bool:
        """Tells whether the server refused `reasoning_effort`, which is left out from then on."""
        is_about_effort = any(word in refused.text.lower() for word in UNKNOWN_EFFORT)
        if refused.status not in REFUSED_PARAMETER or not is_about_effort:
            return False
        with self._lock:
            if model not in self._without_effort:
                self._without_effort |= {model}
                log.warning("judge_without_effort", judge=self.server.where, said=refused.text)
        return True

    def _asks_less(self, form: Form, refused: ServerRefused) -> bool:
        """Tells whether the server refused the form of its reply and another is left to try. It logs that
        once."""
        is_about_form = any(word in refused.text.lower() for word in UNKNOWN_FORM)
        if self.entry.reply != "auto" or form not in LESS or not is_about_form:
            return False
        with self._lock:
            if self._form == form:
                self._form = LESS[form]
                log.warning("judge_replies_less_strictly", judge=self.server.where, refused=form)
        return True

    def _read(self, response: dict[str, Any], question: Question) -> Reply:
        usage, model = usage_of(response), question.target.model
        choice = _first_choice(response)
        message = choice.get("message") if choice else None
        if choice is None or not isinstance(message, dict):
            what = f"{self.server.where} answered with no message."
            raise GradeFailed(FailureKind.MODEL_SERVER, what)
        if failed := _why_no_reply(choice, message):
            raise GradeFailed(*failed, usage={model: usage})
        text = message.get("content")
        return Reply(text if isinstance(text, str) else "", usage, self._remark(question))

    def _remark(self, question: Question) -> str:
        remarks = []
        if question.schema is not None and self.entry.reply == "auto" and self._form != "json_schema":
            remarks.append("the judge's server cannot be held to a JSON schema")
        if EFFORT in question.sampling and question.target.model in self._without_effort:
            value = question.sampling[EFFORT]
            remarks.append(f"the judge's server does not take {EFFORT} '{value}', so it was left out")
        return "; ".join(remarks)


def _first_choice(response: dict[str, Any]) -> dict[str, Any] | None:
    choices = response.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


def _why_no_reply(choice: dict[str, Any], message: dict[str, Any]) -> tuple[FailureKind, str] | None:
    """Says how a judge did not reply, or returns None if it did."""
    if refusal := message.get("refusal"):
        return FailureKind.MODEL_REFUSAL, f"The judge refused: {str(refusal)[:500]}"
    match choice.get("finish_reason"):
        case "content_filter":
            return FailureKind.MODEL_REFUSAL, "The judge's content filter held its reply back."
        case "length":
            what = "The judge reached its token limit before its reply was whole; see sampling_params."
            return FailureKind.MODEL_MAX_TOKENS, what
        case _:
            return None


def _response_format(question: Question, form: Form) -> dict[str, Any]:
    """Returns what holds a reply to its form; nothing for one of plain text."""
    if question.schema is None:
        return {}
    match form:
        case "json_schema":
            schema = {"name": question.schema_name, "schema": question.schema, "strict": True}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        case "json_object":
            return {"response_format": {"type": "json_object"}}
        case "text":
            return {}
