"""What does reading lines strictly cost? `python -m benchmarks.strict_json`.

Fails below 55% of the speed of bare `json.loads`, which is 80 MB/s where that makes 146: machines and their
load differ, the ratio does not.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from graders import strict_json

MIN_SHARE = 0.55
ROUNDS = 7


def lines(n: int = 20_000) -> list[bytes]:
    """Rows as people send them: a prompt, numbers, a nested reference."""
    chance = random.Random(0)
    words = ["receipt", "total", "café", "Zürich", "42", "name", "state", "Python", '"quoted"', "line\nbreak"]
    return [json.dumps(_row(chance, words), ensure_ascii=False).encode() for _ in range(n)]


def _row(chance: random.Random, words: Sequence[str]) -> dict[str, Any]:
    text = " ".join(chance.choices(words, k=100))
    reference = {
        "city": chance.choice(words),
        "total": chance.random() * 100,
        "tags": chance.choices(words, k=4),
    }
    return {
        "messages": [{"role": "user", "content": text}],
        "reference": reference,
        "id": chance.randrange(10**9),
    }


def rate(read: Callable[[bytes], Any], rows: Sequence[bytes]) -> float:
    """MB/s of processor time."""
    started = time.process_time()
    for row in rows:
        read(row)
    return sum(map(len, rows)) / 1e6 / (time.process_time() - started)


def main() -> int:
    rows = lines()
    rounds = [(rate(strict_json.loads, rows), rate(json.loads, rows)) for _ in range(ROUNDS)]
    strict, bare = (statistics.median(column) for column in zip(*rounds, strict=True))
    per_line = sum(map(len, rows)) / len(rows)
    print(f"strict {strict:.0f} MB/s ({strict * 1e6 / per_line:,.0f} lines/s), json.loads {bare:.0f} MB/s")
    return 0 if strict >= MIN_SHARE * bare else 1


if __name__ == "__main__":
    sys.exit(main())
