"""An environment as an operator installs it: it tells the number of a letter, once more if it is not said."""

from __future__ import annotations

import json
from typing import Any

LETTERS = "abcdefghij"


class Numbers:
    def __init__(self, again: bool = False) -> None:
        self.again = again

    def start(self, item: dict[str, Any]) -> None:
        self.wanted = item["reference_answer"]

    def reply(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        calls = messages[-1].get("tool_calls")
        if not calls:
            asked = sum(message["role"] == "user" for message in messages)
            return [{"role": "user", "content": "Say it again."}] if self.again and asked == 1 else None
        return [
            {"role": "tool", "tool_call_id": call["id"], "content": self.number_of(call)} for call in calls
        ]

    def number_of(self, call: dict[str, Any]) -> str:
        key = json.loads(call["function"]["arguments"]).get("key")
        return str(3 * LETTERS.index(key) % 10) if key in tuple(LETTERS) else "no letter"

    def reward(self, messages: list[dict[str, Any]]) -> float:
        return 1.0 if messages[-1]["content"] == self.wanted else 0.25
