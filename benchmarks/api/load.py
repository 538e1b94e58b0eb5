"""A bounded HTTP load from a process of its own: `python -m benchmarks.api.load < plan.json`.

A whole HTTP client in Python would measure itself, so this speaks just enough HTTP/1.1: one request after
the other on each connection, answers told apart by Content-Length.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Plan:
    """What to send.

    Attributes:
        requests: whole requests as text; connections take them in turn.
        connections: side by side.
        seconds: how long.
        every: pause of each connection from one request to the next, in seconds; 0 sends at once.
    """

    port: int
    requests: Sequence[str]
    connections: int
    seconds: float
    every: float = 0.0


@dataclass
class Measured:
    """What came back. Times in milliseconds."""

    count: int = 0
    failed: int = 0
    seconds: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    def __str__(self) -> str:
        return f"{self.rate:8.0f} req/s  p50 {self.p50:6.1f} ms  p99 {self.p99:6.1f} ms  {self.failed} failed"


def request(method: str, path: str, key: str, body: bytes = b"", media: str = "application/json") -> str:
    """A request as it goes over the wire (the body must be ASCII)."""
    head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {key}"]
    if body:
        head += [f"Content-Type: {media}", f"Content-Length: {len(body)}"]
    return "\r\n".join(head) + "\r\n\r\n" + body.decode("ascii")


def run(plan: Plan) -> Measured:
    """Send the load from another process."""
    command = [sys.executable, "-m", "benchmarks.api.load"]
    given = json.dumps(asdict(plan))
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    return Measured(**json.loads(done.stdout))


class _Load:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.times: list[float] = []
        self.statuses: dict[str, int] = {}
        self.failed = 0

    async def send(self) -> Measured:
        started = time.perf_counter()
        end = started + self.plan.seconds
        await asyncio.gather(*(self._connection(number, end) for number in range(self.plan.connections)))
        seconds = time.perf_counter() - started
        ordered = sorted(self.times) or [0.0]
        p50, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000 for share in (0.5, 0.99))
        return Measured(len(self.times), self.failed, seconds, p50, p99, self.statuses)

    async def _connection(self, number: int, end: float) -> None:
        chance = random.Random(number)
        if self.plan.every:
            await asyncio.sleep(chance.uniform(0, self.plan.every))
        reader, writer = await asyncio.open_connection("127.0.0.1", self.plan.port)
        turn = number
        try:
            while (now := time.perf_counter()) < end:
                raw = self.plan.requests[turn % len(self.plan.requests)]
                turn += self.plan.connections
                writer.write(raw.encode())
                status = await _answer(reader)
                self.times.append(time.perf_counter() - now)
                self.statuses[status] = self.statuses.get(status, 0) + 1
                self.failed += not status.startswith("2")
                if self.plan.every:
                    await asyncio.sleep(self.plan.every)
        except (OSError, asyncio.IncompleteReadError):
            self.failed += 1
        finally:
            writer.close()


async def _answer(reader: asyncio.StreamReader) -> str:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, _, rest = head.partition(b"content-length:")
    await reader.readexactly(int(rest.split(b"\r\n", 1)[0]))
    return head.split(b" ", 2)[1].decode()


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(_Load(Plan(**json.load(sys.stdin))).send()))))
