"""What a model is asked about an item: a template, messages that the item holds, or what was asked before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from app.chat.messages import chat_messages
from app.evals.answers import Messages
from graders.judges.messages import MessageTemplate
from graders.judges.spec import MessageSpec
from graders.template import Variable
from graders.types import GradeFailed, Sample
from workers.evals.faults import AnswerFailed

NOBODY = Sample("")
"""There is no answer yet: no template that is rendered here reads one."""
LOGGED = Variable.parse("item.input")
Question = Callable[[Mapping[str, Any]], Messages]
"""Returns the messages for an item. Raises `AnswerFailed`."""


def question_of(input_messages: Mapping[str, Any] | None) -> Question:
    """Returns how a checked `input_messages` makes messages; without one, an item's own `input` is asked."""
    if input_messages is not None and input_messages["type"] == "template":
        specs = [MessageSpec.model_validate(raw) for raw in input_messages["template"]]
        templates = [MessageTemplate.of(spec) for spec in specs]
        return lambda item: _rendered(templates, item)
    named = LOGGED if input_messages is None else Variable.parse(input_messages["item_reference"])
    return lambda item: _held(named, item)


def _rendered(templates: list[MessageTemplate], item: Mapping[str, Any]) -> Messages:
    try:
        return [template.render(NOBODY, item) for template in templates]
    except GradeFailed as failed:
        raise AnswerFailed("invalid_item", failed.failure.message) from None


def _held(variable: Variable, item: Mapping[str, Any]) -> Messages:
    """Returns the messages that an item holds; a text is what a user says."""
    try:
        found = variable.value(NOBODY, item)
    except GradeFailed as failed:
        raise AnswerFailed("invalid_item", failed.failure.message) from None
    if isinstance(found, str):
        return [{"role": "user", "content": found}]
    is_conversation = isinstance(found, list) and found and all(map(_is_message, found))
    if not is_conversation:
        raise AnswerFailed("invalid_item", f"'{variable}' is no list of messages with a role and a content.")
    return chat_messages(found)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and "content" in value
