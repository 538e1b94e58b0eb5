"""The turns of an episode: what the policy wrote in each, and what came back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.training.base.parts import Parts, ToolCall


@dataclass(frozen=True)
class CallResult:
    """Is what a tool answered to one call.

    Attributes:
        call_id: names the call, on the wire and in the messages that graders see.
        call: what was called.
        output: the text that the policy reads.
        seconds: how long the tool took, all tries together.
        is_error: the output tells of an error, not of a result.
        tokens: of the output alone; 0 where it was not read any more.
        is_known: whether there is such a tool; else its name is an invention of the policy.
    """

    call_id: str
    call: ToolCall
    output: str
    seconds: float = 0.0
    is_error: bool = False
    tokens: int = 0
    is_known: bool = True

    @property
    def message(self) -> dict[str, Any]:
        """Returns the result as a chat message."""
        return {
            "role": "tool",
            "tool_call_id": self.call_id,
            "name": self.call.name,
            "content": self.output,
        }


@dataclass(frozen=True)
class Turn:
    """Is one turn of the policy, and what came back to it.

    Attributes:
        parts: what it wrote, taken apart.
        tokens: how many tokens it chose.
        results: of its calls, in their order; none where they were not made any more.
        messages: what else came back, in the chat form, such as a user's next message.
    """

    parts: Parts
    tokens: int
    results: tuple[CallResult, ...] = ()
    messages: tuple[Mapping[str, Any], ...] = ()

    @property
    def chat_messages(self) -> list[dict[str, Any]]:
        """Returns the turn as chat messages: the assistant's, then what came back."""
        answered: dict[str, Any] = {"role": "assistant", "content": self.parts.answer}
        if self.parts.calls:
            answered["tool_calls"] = self.calls
        return [answered, *(result.message for result in self.results), *map(dict, self.messages)]

    @property
    def told(self) -> list[dict[str, Any]]:
        """Returns the same for a person: with thoughts, lengths, times, and what went wrong."""
        answered, *others = self.chat_messages
        answered["tokens"] = self.tokens
        if self.parts.thoughts:
            answered["reasoning_content"] = self.parts.thoughts
        if self.parts.fault is not None:
            answered["unparsed"] = self.parts.fault
        for message, result in zip(others, self.results, strict=False):
            message |= {"tokens": result.tokens, "seconds": result.seconds, "is_error": result.is_error}
        return [answered, *others]

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Returns its calls in the chat form, those that were not made by their number."""
        ids = [result.call_id for result in self.results]
        ids += [f"call_{number}" for number in range(len(ids), len(self.parts.calls))]
        return [call.chat_form(call_id) for call, call_id in zip(self.parts.calls, ids, strict=True)]
