"""What a judge reads out of a prompt: the answers, the criteria, and what range the score has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from graders.judges.fence import fenced, fenced_texts

ANSWER = "Answer:"
"""Where a prompt of a user's own says what is judged: all that follows the first of these."""


def text_of(messages: Sequence[dict[str, Any]]) -> str:
    """Returns all that was sent, as one text."""
    return "\n\n".join(_content(message) for message in messages)


def answers_of(messages: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Returns the names and texts of what is judged, in their order: the fences whose name begins with
    "answer", or what the last message has behind "Answer:", or all of it."""
    fences = fenced_texts(text_of(messages))
    if found := [(name, text) for name, text in fences if name.startswith("answer")]:
        return found
    last = _content(messages[-1])
    _, mark, behind = last.partition(ANSWER)
    return [("answer", behind.strip() if mark else last.strip())]


def criteria_of(messages: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the criteria of a rubric: the numbered lines behind "Criteria:", outside of all fences."""
    text = text_of(messages)
    for name, inside in fenced_texts(text):
        text = text.replace(fenced(name, inside), "")
    behind = re.split(r"^Criteria:$", text, flags=re.MULTILINE)[-1]
    return re.findall(r"^\d+\. (.+)$", behind, re.MULTILINE)


def range_of(messages: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Returns the least and the largest score, as the reply format of `score_model` tells them."""
    found = re.search(r"a number from (-?[\d.e+-]+) to (-?[\d.e+-]*\d)", text_of(messages))
    return (float(found[1]), float(found[2])) if found else (0.0, 1.0)


def _content(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content)
