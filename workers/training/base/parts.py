"""The parts of a completion: what it thought, what it answered, and which tools it called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ToolCall:
    """Is one call of a function, as the policy wrote it.

    Attributes:
        name: of the function.
        arguments: a JSON object.
    """

    name: str
    arguments: Mapping[str, Any]

    def chat_form(self, call_id: str) -> dict[str, Any]:
        """Returns the call as a chat message has it, with its arguments as JSON text."""
        arguments = json.dumps(self.arguments, ensure_ascii=False)
        return {"id": call_id, "type": "function", "function": {"name": self.name, "arguments": arguments}}


@dataclass(frozen=True)
class Parts:
    """Holds a completion taken apart by the response template of its model.

    Attributes:
        thoughts: the text of the thoughts without their marks; None where there are none.
        answer: the text that is meant for the reader; "" where there is none.
        calls: the tools that it called, in their order.
        fault: why the completion could not be taken apart: a sentence. It is then `unparsed`, and has
            no other part.
        is_cut_in_thoughts: it ended before its thoughts did, so that it has no answer.
        thought_tokens: how many of its tokens are thoughts, their marks counted.
    """

    thoughts: str | None = None
    answer: str = ""
    calls: tuple[ToolCall, ...] = ()
    fault: str | None = None
    is_cut_in_thoughts: bool = False
    thought_tokens: int = 0
