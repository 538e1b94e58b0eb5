"""Turns what an answer answers into the text that a judge is shown of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from graders.template import MAX_RENDERED, Template, as_text
from graders.types import FailureKind, GradeFailed, Sample

PROMPTS = ("messages", "prompt")
"""Where rows hold what was asked: a job's rows, and HealthBench's as they are published."""


def conversation_of(sample: Sample, item: Mapping[str, Any], template: Template | None = None) -> str:
    """Returns what was said before the answer; "" where the row does not tell.

    That is the template's value where there is one, else the row's messages; in an episode all that followed
    them too, but for the answer itself. Raises `GradeFailed` as templates do.
    """
    if template is not None:
        asked = template.value(sample, item)
    else:
        asked = next((item[key] for key in PROMPTS if item.get(key)), "")
    said = asked if _is_messages(asked) else []
    told = "" if said else as_text(asked)
    followed = list(sample.messages)
    while followed and followed[-1].get("role") == "assistant" and not followed[-1].get("tool_calls"):
        followed.pop()
    text = "\n\n".join(filter(None, [told, *(_told(message) for message in [*said, *followed])]))
    if len(text) > MAX_RENDERED:
        raise GradeFailed(FailureKind.OTHER, f"The prompt is longer than {MAX_RENDERED:,} characters.")
    return sendable(text)


def sendable(text: str) -> str:
    """Returns a text without what UTF-8 cannot write: half a character that a model broke off in."""
    return text.encode("utf-8", "replace").decode()


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, Mapping) and "role" in one for one in value)


def _told(message: Mapping[str, Any]) -> str:
    """Returns a message as `[user]` and its text below; of what is no text, only that it is there."""
    said = [_content(message.get("content"))]
    if calls := message.get("tool_calls"):
        said.append(json.dumps(calls, ensure_ascii=False))
    return f"[{message['role']}]\n" + "\n".join(filter(None, said))


def _content(content: Any) -> str:
    if not isinstance(content, Sequence) or isinstance(content, str):
        return as_text(content) if content is not None else ""
    return "\n".join(_part(part) for part in content)


def _part(part: Any) -> str:
    if isinstance(part, Mapping):
        return part["text"] if isinstance(part.get("text"), str) else f"[{part.get('type', 'something')}]"
    return as_text(part)
