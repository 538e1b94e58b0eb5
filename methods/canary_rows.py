"""What a row of a canary file is: a text, or a conversation, that has nothing to do with the job's task."""

from __future__ import annotations

from typing import Any

from methods.messages import CHAT_ROLES, RowInvalid, check_message, check_tools, kind_of
from methods.rows import check_object

MOST_TEXTS = 256
"""Rows of a canary file. With more, each would have fewer than 4 of the 1,024 tokens that are read."""


def check_canary_row(item: Any) -> None:
    """Raises `RowInvalid` for what is neither {"text": "..."} nor a conversation."""
    check_object(item)
    if "text" in item:
        _check_text(item)
        return
    messages = item.get("messages")
    if messages is None:
        raise RowInvalid("'text' is missing; a row of a canary file has a 'text', or 'messages'")
    if not isinstance(messages, list) or not messages:
        raise RowInvalid("'messages' must be a list with at least one message")
    for place, message in enumerate(messages):
        check_message(message, f"messages[{place}]", CHAT_ROLES)
    check_tools(item.get("tools"))


def _check_text(item: dict[str, Any]) -> None:
    if "messages" in item:
        raise RowInvalid("the row has both 'text' and 'messages'; leave one out")
    if not isinstance(item["text"], str):
        raise RowInvalid(f"'text' must be text, not {kind_of(item['text'])}")
    if not item["text"].strip():
        raise RowInvalid("'text' is empty")
