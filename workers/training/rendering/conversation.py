"""Conversations of rows, and of requests, in the one form that everything here works on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from methods.messages import OF_TOOLS, THOUGHTS, text_of, thought_of

_ROLES = {"developer": "system", "function": "tool"}
"""Roles of OpenAI's that open models' templates know by another name."""
_RENAMED = ("weight", "function_call", *THOUGHTS)


class Conversation(NamedTuple):
    """Holds messages as open models' templates name their parts, with text for content, and tools or None.

    Arguments of calls are as the row has them: text or an object.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None

    @property
    def ends_with_answer(self) -> bool:
        """Whether the last message is the assistant's; else the model is to write one."""
        return bool(self.messages[-1]["role"] == "assistant")

    @property
    def prompt(self) -> Conversation:
        """Returns the conversation without its last message."""
        return Conversation(self.messages[:-1], self.tools)

    def with_messages(self, messages: Sequence[dict[str, Any]]) -> Conversation:
        """Returns the conversation with more messages behind its own."""
        return Conversation([*self.messages, *messages], self.tools)


def conversation(
    item: Mapping[str, Any], messages: Sequence[Mapping[str, Any]] | None = None
) -> Conversation:
    """Returns the conversation of a row; `messages` stand for its own where they are given."""
    said = item["messages"] if messages is None else messages
    return Conversation([_message(each) for each in said], tools_of(item))


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a message without what no template knows; calls and functions of old under today's names."""
    kept = {key: value for key, value in message.items() if key not in _RENAMED}
    kept["role"] = _ROLES.get(message["role"], message["role"])
    kept["content"] = text_of(message.get("content"))
    if thought := thought_of(message):
        kept["reasoning_content"] = thought
    if call := message.get("function_call"):
        kept["tool_calls"] = [{"type": "function", "function": call}]
    if kept.get("tool_calls"):
        kept["tool_calls"] = [_call(each) for each in kept["tool_calls"]]
    else:
        kept.pop("tool_calls", None)
    if message["role"] in OF_TOOLS:
        kept.pop("tool_calls", None)
    return kept


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {"type": "function", **call, "function": {**function, "arguments": function.get("arguments", {})}}


def tools_of(item: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Returns a row's tools in the chat form; those of the responses API have no `function` of their own."""
    functions = [{"type": "function", "function": function} for function in item.get("functions") or ()]
    return [*map(_tool, item.get("tools") or ()), *functions] or None


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    if "function" in tool or "name" not in tool or tool.get("type", "function") != "function":
        return dict(tool)
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}
