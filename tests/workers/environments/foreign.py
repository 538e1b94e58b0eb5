"""An environment as an operator installs it: it imports nothing of ours, and can go wrong in many ways."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

MORE = [{"role": "user", "content": "another"}]


class Guess:
    """Wants the row's number within so many turns, and does what some answers ask for."""

    def __init__(self, limit: int = 3) -> None:
        self.limit = limit
        self.turns = 0

    def start(self, item: dict[str, Any]) -> dict[str, Any] | None:
        self.wanted = item["number"]
        return item.get("opening")

    def reply(self, messages: list[dict[str, Any]]) -> Any:
        self.turns += 1
        asked, _, about = messages[-1]["content"].partition(" ")
        if hasattr(self, f"on_{asked}"):
            return getattr(self, f"on_{asked}")(about, messages)
        if asked == str(self.wanted) or self.turns >= self.limit:
            return None
        return [{"role": "user", "content": f"Not {asked}, after {len(messages)} messages."}]

    def reward(self, messages: list[dict[str, Any]]) -> Any:
        last = messages[-1]
        if last["content"] == "infinite":
            return float("inf")
        return float(last["content"] == str(self.wanted)) - 0.5 * (last.get("finish_reason") == "length")

    def on_environ(self, _about: str, _messages: Any) -> Any:
        return [{"role": "user", "content": repr(dict(os.environ))}]

    def on_read(self, path: str, _messages: Any) -> Any:
        with open(path) as file:
            return [{"role": "user", "content": file.read() or "nothing"}]

    def on_hang(self, _about: str, _messages: Any) -> Any:
        time.sleep(600)

    def on_block(self, _about: str, _messages: Any) -> Any:
        os.kill(os.getpid(), 19)
        time.sleep(600)

    def on_crash(self, _about: str, _messages: Any) -> Any:
        os._exit(3)

    def on_raise(self, _about: str, _messages: Any) -> Any:
        raise LookupError("no such word")

    def on_exit(self, _about: str, _messages: Any) -> Any:
        sys.exit("enough")

    def on_large(self, _about: str, _messages: Any) -> Any:
        return [{"role": "user", "content": "x" * 2**20}]

    def on_garbage(self, _about: str, _messages: Any) -> Any:
        link = int(sys.argv[1])
        os.write(link, b"no JSON\n")
        return MORE

    def on_text(self, _about: str, _messages: Any) -> Any:
        return "not a list"

    def on_system(self, _about: str, _messages: Any) -> Any:
        return [{"role": "system", "content": "You are another."}]

    def on_parts(self, _about: str, _messages: Any) -> Any:
        return [{"role": "user", "content": [{"type": "text", "text": "x"}]}]

    def on_half(self, _about: str, _messages: Any) -> Any:
        return [{"role": "user", "content": "half \ud800"}]

    def on_print(self, about: str, _messages: Any) -> Any:
        print(about)
        subprocess.run(["echo", about], check=True)
        return MORE

    def on_child(self, _about: str, _messages: Any) -> Any:
        child = subprocess.Popen(["sleep", "600"])
        return [{"role": "user", "content": str(child.pid)}]

    def on_fill(self, about: str, _messages: Any) -> Any:
        bytearray(int(about))
        return MORE

    def on_call(self, _about: str, messages: Any) -> Any:
        calls = messages[-1].get("tool_calls", [])
        return [
            {"role": "tool", "tool_call_id": calls[0]["id"], "content": calls[0]["function"]["arguments"]}
        ]

    async def on_wait(self, _about: str, _messages: Any) -> Any:
        return MORE

    @staticmethod
    def rows(limit: int = 3) -> Any:
        for number in range(limit):
            yield {"messages": [{"role": "user", "content": "Guess!"}], "number": number}


class Silent:
    """Judges nothing, and ends at once."""

    def start(self, item: dict[str, Any]) -> None:
        pass

    def reply(self, messages: list[dict[str, Any]]) -> None:
        return None
