"""An environment, a reader and a template for tests of episodes with a random model of bytes."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from workers.training.base.parts import Parts, ToolCall
from workers.training.base.turns import CallResult
from workers.training.base.types import Prompt
from workers.training.episodes.environment import EpisodeLost, Reply

TEMPLATE = (
    "{% for m in messages %}<begin>{{ m['role'] }}:{{ m['content'] }}"
    "{% for c in m.tool_calls or [] %}[{{ c['function']['name'] }} {{ c['function']['arguments'] | tojson }}]"
    "{% endfor %}<end>{% endfor %}{% if add_generation_prompt %}<begin>assistant:{% endif %}"
)
ITEM: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hi"}],
    "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
}
ENDS = tuple(range(0, 256, 7))


class EveryTurnCalls:
    """Takes each turn for a call of `look` with the number of its tokens."""

    def read(self, prompt_ids: Any, tokens: Any, tools: Any = None) -> Parts:
        assert tools == ITEM["tools"]
        assert prompt_ids
        return Parts(calls=(ToolCall("look", {"n": len(tokens), "last": int(tokens[-1])}),))


class Looking:
    """Answers each call with a text that follows from it, after a wait; some episodes end, or are lost."""

    def __init__(
        self,
        wait: Callable[[], float] = lambda: 0.0,
        most: int = 99,
        lose: Callable[[Mapping[str, Any]], bool] = lambda _: False,
    ) -> None:
        self.wait, self.most, self.lose = wait, most, lose
        self.started: list[str] = []
        self.lock = threading.Lock()

    def start(self, item: Mapping[str, Any], trace_id: str) -> Looked:
        with self.lock:
            self.started.append(trace_id)
        return Looked(self)


class Looked:
    def __init__(self, environment: Looking) -> None:
        self.environment = environment
        self.replied = 0

    def reply(self, parts: Parts) -> Reply:
        time.sleep(self.environment.wait())
        self.replied += 1
        (call,) = parts.calls
        if self.environment.lose(call.arguments):
            raise EpisodeLost("the tool server answered 500")
        if self.replied >= self.environment.most:
            return Reply()
        return Reply([CallResult("call_1", call, f"found {call.arguments['n']}", 0.1)])


def random_waits(seed: int) -> Callable[[], float]:
    generator = random.Random(seed)
    return lambda: generator.random() * 0.02


def prompts_of(policy: Any, n: int) -> list[Prompt]:
    ids = tuple(policy.tokenizer("<begin>user:hi<end><begin>assistant:")["input_ids"])
    return [Prompt(row, ITEM, ids) for row in range(n)]
