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

    @property
    def is_plain(self) -> bool:
        """Whether the completion is all answer, or was not taken apart."""
        return self.fault is not None or not (self.thoughts or self.calls or self.is_cut_in_thoughts)

    @property
    def message(self) -> dict[str, Any]:
        """Returns the parts as a chat message that shows thoughts too, and why there are none if so."""
        message: dict[str, Any] = {"role": "assistant", "content": self.answer}
        if self.thoughts is not None:
            message["reasoning_content"] = self.thoughts
        if self.calls:
            message["tool_calls"] = self.chat_calls
        if self.fault is not None:
            message["unparsed"] = self.fault
        return {**message, "reasoning_tokens": self.thought_tokens}

    @property
    def chat_calls(self) -> list[dict[str, Any]]:
        """Returns the calls as a chat message has them, named by their number."""
        return [call.chat_form(f"call_{number}") for number, call in enumerate(self.calls)]
