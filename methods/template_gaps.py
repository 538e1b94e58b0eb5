"""What a model's chat template may be unable to show, by the names that the API has for it."""

from __future__ import annotations

from collections.abc import Iterable

SYSTEM_MESSAGES, ANSWERS, TOOLS = "system_messages", "answers", "tools"
THOUGHTS, EARLIER_THOUGHTS = "thoughts", "earlier_thoughts"
TOOL_CALLS, SEVERAL_CALLS = "tool_calls", "several_tool_calls"
BESIDE_CALLS, RESULTS = "text_beside_tool_calls", "tool_results"

GAPS = {
    SYSTEM_MESSAGES: "system messages",
    ANSWERS: "earlier answers",
    THOUGHTS: "thoughts",
    EARLIER_THOUGHTS: "the thoughts of earlier answers",
    TOOLS: "tools",
    TOOL_CALLS: "tool calls",
    SEVERAL_CALLS: "several tool calls in one message",
    BESIDE_CALLS: "text beside tool calls",
    RESULTS: "results of tool calls",
}
"""Each gap in words, in the order in which they are told."""


def in_words(gaps: Iterable[str]) -> str:
    """Returns the gaps as a sentence holds them."""
    return ", ".join(GAPS[gap] for gap in gaps)
