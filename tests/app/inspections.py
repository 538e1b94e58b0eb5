"""Inspections that misbehave: `python -m tests.app.inspections NAME`, in the place of `workers.inspect`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from workers.inspect.protocol import MAX_BYTES, respond


def hang(pid_file: str) -> dict[str, Any]:
    Path(pid_file).write_text(str(os.getpid()))
    time.sleep(600)
    raise AssertionError("nobody has killed this process")


def eat() -> dict[str, Any]:
    eaten = [bytearray(2**24) for _ in range(2**8)]  # 4 GiB
    return {"ate": len(eaten)}


def chatter(word: str) -> dict[str, Any]:
    print("loading checkpoint shards: 100 %", flush=True)
    os.system("echo and more, from a child of its own")
    return {"word": word, "secrets": [name for name in os.environ if name.startswith(("CHERRY", "DATABASE"))]}


def fail() -> dict[str, Any]:
    raise ValueError("this folder holds no model")


def abort() -> dict[str, Any]:
    os.abort()


def tell_too_much() -> dict[str, Any]:
    return {"text": "x" * MAX_BYTES}


if __name__ == "__main__":
    made = {each.__name__: each for each in (hang, eat, chatter, fail, abort, tell_too_much)}
    respond(made, sys.argv[1])
