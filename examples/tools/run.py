"""Teach a model to call a tool and to trust it, then use it in a plain client loop.

    python -m examples.tools.run

The built-in model `cherry-nano-think` knows how a function is called, but mostly answers out of its head, or
calls with the wrong argument, or ignores the result. `examples/tools/server.py` knows the prices. A
reinforcement job with that tool grades nothing but the answer, which only a call can bring.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from openai import OpenAI

from examples.demo import service
from examples.flywheel.run import AT_ONCE, Difference, compare
from examples.thinking.run import Row, read_rows, train
from examples.tools.server import Tools, get_price

HERE = Path(__file__).parent
MOST_TURNS = 3
SHOWN = 2
MAY_CALL = {"CHERRY_OUTBOUND_ALLOW": "127.0.0.1", "CHERRY_OUTBOUND_ALLOW_HTTP": "true"}
"""A service calls https URLs of public hosts alone unless its operator allows more (docs/webhooks.md)."""


class Conversation(NamedTuple):
    """A question asked to its end."""

    answer: str
    calls: int
    messages: list[Any]


class Outcome(NamedTuple):
    """What was trained, and how often its answers are right because of a call."""

    model: str
    difference: Difference
    """From the base to the tuned model, on the same rows."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(".tools"), help="folder for all its state")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    os.environ.update(MAY_CALL)
    with tool_server() as url, service(args.data, keep=False) as up:
        client = OpenAI(base_url=up["url"] + "/v1", api_key=up["api_key"])
        outcome = teach_and_measure(client, url, args.seed, print)
        for row in read_rows(HERE, "unseen")[:SHOWN]:
            print(*shown(converse(client, outcome.model, row, temperature=0)), sep="\n")
    return 0


@contextmanager
def tool_server() -> Iterator[str]:
    """The tool server on a free port of this machine: its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Tools)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def teach_and_measure(client: OpenAI, url: str, seed: int, say: Callable[[str], None]) -> Outcome:
    """Train, then compare with the base."""
    unseen = read_rows(HERE, "unseen")
    model = train(client, HERE, seed, {"tools": [{"name": "get_price", "server_url": url}]}, say)
    before, after = (right_by_call(client, name, unseen, seed) for name in ("cherry-nano-think", model))
    found = compare(before, after)
    say(f"Right because of a call: {found.before:.2f} before, {found.after:.2f} after, p = {found.p:.4f}")
    return Outcome(model, found)


def right_by_call(client: OpenAI, model: str, rows: Sequence[Row], seed: int) -> list[float]:
    """1 for each conversation, sampled as in training, that called and ended with the right answer."""

    def asked(number: int, row: Row) -> float:
        ended = converse(client, model, row, seed * len(rows) + number)
        return float(ended.calls > 0 and ended.answer == row["reference"])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(asked, range(len(rows)), rows))


def converse(client: OpenAI, model: str, row: Row, seed: int = 0, temperature: float = 1) -> Conversation:
    """The client's loop: ask; while the model calls, run the function and tell it the result."""
    messages: list[Any] = list(row["messages"])
    calls = 0
    for _ in range(MOST_TURNS):
        completion = client.chat.completions.create(
            model=model,
            messages=messages,
            tools=row["tools"],
            max_completion_tokens=128,
            seed=seed,
            temperature=temperature,
        )
        message: Any = completion.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            return Conversation(message.content or "", calls, messages)
        for call in message.tool_calls:
            calls += 1
            item = json.loads(call.function.arguments).get("item")
            messages.append({"role": "tool", "tool_call_id": call.id, "content": get_price(str(item))})
    return Conversation("", calls, messages)


def shown(conversation: Conversation) -> list[str]:
    """A conversation for a person: a line for each message, and for each call."""
    lines: list[str] = []
    for message in conversation.messages:
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        lines += [f"{message['role']} calls {call['name']}({call['arguments']})" for call in calls]
        if message.get("content"):
            lines.append(f"{message['role']}: {message['content']}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
