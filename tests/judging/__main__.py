"""`python -m tests.judging --behaviour noisy --port 8901 --worth words:dog,play` runs a judge.

It prints its port once it listens; `--port 0` takes a free one. A model whose name is that of another
behaviour behaves so: one process has them all.
"""

from __future__ import annotations

import argparse

from tests.judging.behaviours import BEHAVIOURS, SLOW_SECONDS, Eye
from tests.judging.server import JudgeServer
from tests.judging.worth import named_worth


def main() -> None:
    """Serves until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.judging", description=__doc__)
    parser.add_argument("--behaviour", choices=BEHAVIOURS, default="exact")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-ms", type=float, help="before each reply")
    parser.add_argument("--worth", default="words:play", help="words:a,b or some.module:function")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep-alive", action="store_true", help="connections stay open, for many calls")
    asked = parser.parse_args()
    slow = SLOW_SECONDS if asked.behaviour == "slow" else 0.0
    delay = slow if asked.delay_ms is None else asked.delay_ms / 1000
    worth = named_worth(asked.worth)
    eyes = {"" if name == asked.behaviour else name: Eye(name, worth, asked.seed) for name in BEHAVIOURS}
    server = JudgeServer(asked.port, eyes, delay, keeps_alive=asked.keep_alive)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
