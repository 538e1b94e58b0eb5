"""What a tool is to an episode, and the errors that the policy reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from workers.training.base.parts import ToolCall

MAX_BYTES = 2**20
"""Most bytes of a call, and of what a tool answers: Azure's bound."""


_UNREADABLE = re.compile("[\x00\ud800-\udfff]")
"""NUL, and halves of characters: no tokenizer, and no database, takes them."""


class Output(NamedTuple):
    """Is what the policy reads of a call."""

    text: str
    is_error: bool = False


@dataclass
class Context:
    """Says in which episode a call is made.

    Attributes:
        state: what tools that run here keep between their calls of one episode.
    """

    trace_id: str
    item: Mapping[str, Any]
    state: dict[str, Any] = field(default_factory=dict)


class Tool(Protocol):
    """Answers calls of one function. It is safe to call from many threads."""

    @property
    def keeps_state(self) -> bool:
        """Whether calls of one turn must come one after another, since they share a state here."""

    def call(self, call: ToolCall, call_id: str, context: Context, /) -> Output:
        """Returns what the policy reads. Raises `EpisodeLost` where the tool itself failed."""


def readable(text: str) -> str:
    """Returns a text that the policy can read: U+FFFD stands for NUL, and for halves of characters."""
    return _UNREADABLE.sub("\ufffd", text)


def error(code: int | str, message: str) -> Output:
    """Returns an error in the form in which the policy reads it."""
    return Output(json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False), True)


def too_large(what: str) -> Output:
    """Returns the error of a call, or an answer, of more than 1 MB."""
    return error(413, f"{what} is larger than {MAX_BYTES} bytes.")


def whole_text(text: str) -> str:
    """Returns a text without halves of characters, which can be neither sent nor read by a model."""
    return text.encode("utf-8", "replace").decode()
