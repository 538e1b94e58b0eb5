"""What a side's process reads and writes: a line of JSON is asked, a line of JSON answers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Sample = Callable[[Sequence[Sequence[int]], int, str], Mapping[str, Any]]
"""(prompts, tokens of each completion, how) -> {"tokens": how many were sampled, ...}."""


def answer(sample: Sample, about: Mapping[str, Any]) -> None:
    """Says what this side is, then samples for each line of standard input, and says how long that took."""
    told = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no answer
    print(json.dumps(about), file=told, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        cpu, wall = time.process_time(), time.perf_counter()
        found = dict(sample(asked["prompts"], asked["tokens"], asked["how"]))
        found |= {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        print(json.dumps(found), file=told, flush=True)
