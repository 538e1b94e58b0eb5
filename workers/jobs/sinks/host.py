"""Runs one sink in a process of its own: whatever its library does, the training goes on.

It reads lines of JSON from its standard input, first the run, then a line for each step, and writes on its
standard output what became of them. It ends with its input, or soon after the training is gone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO, TypeVar

from workers.jobs.sinks.base import ShownRun, Sink, Unavailable
from workers.jobs.sinks.mlflow import Mlflow
from workers.jobs.sinks.tensorboard import TensorBoard
from workers.jobs.sinks.trackio import Trackio
from workers.jobs.sinks.weights_and_biases import WeightsAndBiases

KINDS: dict[str, Callable[[ShownRun], Sink]] = {
    "wandb": WeightsAndBiases,
    "tensorboard": TensorBoard,
    "mlflow": Mlflow,
    "trackio": Trackio,
}
PAUSES = (1, 2, 4, 8, 16, 32, *(60,) * 9)
"""Seconds between the tries of one step, ten minutes in all; after them it is left out. Chosen, not
measured."""
ORPHAN_SECONDS = 60.0
"""How long what has come is still sent after the training is gone."""
MAX_REASON = 500

T = TypeVar("T")
Tell = Callable[[dict[str, Any]], None]


def serve(
    make: Callable[[ShownRun], Sink], inward: Iterable[str], tell: Tell, sleep: Callable[[float], None]
) -> None:
    """Opens a sink for the run of the first line and gives it the steps of the others."""
    lines = iter(inward)
    run = ShownRun(**json.loads(next(lines)))
    try:
        sink = _persist(lambda: make(run), tell, sleep)
    except Unavailable as reason:
        tell({"refused": str(reason)})
        return
    if sink is None:
        return
    for line in lines:
        told = json.loads(line)
        _take(sink, told["step"], told["values"], tell, sleep)
    _persist(sink.close, tell, sleep)
    tell({"closed": True})


def _take(sink: Sink, step: int, values: dict[str, Any], tell: Tell, sleep: Callable[[float], None]) -> None:
    def take() -> bool:
        if not sink.has(step):
            sink.log(step, values)
        return True

    tell({"done" if _persist(take, tell, sleep) else "dropped": step})


def _persist(act: Callable[[], T], tell: Tell, sleep: Callable[[float], None]) -> T | None:
    """Returns what an act returns, which is tried until it succeeds; None where it never has.

    Raises `Unavailable`.
    """
    for pause in (*PAUSES, None):
        try:
            return act()
        except Unavailable:
            raise
        except Exception as problem:  # a library, a network, a server: they have many words
            tell({"failing": f"{type(problem).__name__}: {problem}"[:MAX_REASON]})
            if pause is not None:
                sleep(pause)
    return None


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)


def _own_output() -> TextIO:
    """Returns where to tell, and leaves to libraries, which print, the standard error instead."""
    telling = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return telling


def main() -> None:
    """Serves the kind of sink that the command line names."""
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, signal.SIG_IGN)  # the end of the input ends it
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    telling = _own_output()

    def tell(message: dict[str, Any]) -> None:
        try:
            print(json.dumps(message), file=telling, flush=True)
        except BrokenPipeError:
            return  # the training is gone; what has come is sent all the same

    serve(KINDS[sys.argv[1]], sys.stdin, tell, time.sleep)
    os._exit(0)  # threads of libraries have had their time


if __name__ == "__main__":
    main()
